"""The made-up visits: who comes when, looks at what, and buys which of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.generate_items import CATEGORIES, STYLE_COUNT, TIERS, Catalogue, Floats, Ints
from features.generate_shoppers import SLOT_SHARE, Shoppers, draw
from features.generate_words import COUNTRIES

VIEWS = 6.0  # a session's mean
CARTS_PER_VIEW, PURCHASES_PER_CART = 10 / 85, 5 / 10
STYLE_PULL, TIER_PULL = 6.0, 1.0  # how strongly style and price level decide which item of a category is looked at
# How busy the shop is by local hour, from midnight.
HOURS = np.array([2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 10, 11, 12, 11, 10, 10, 11, 13, 15, 18, 20, 18, 12, 6], float)
WEEKDAYS = np.array([1.0, 0.95, 0.95, 1.0, 0.95, 1.15, 1.3])  # Monday first


@dataclass(frozen=True, slots=True)
class Visits:
    """S sessions: user int64[S], start float64[S] in seconds before the end; late int64[S], 1 where late
    tastes rule, else 0."""

    user: Ints
    start: Floats
    late: Ints


@dataclass(frozen=True, slots=True)
class Views:
    """V views in the order of their sessions: session int64[V], rising; item int64[V]; steps int64[V], how far each
    went: 1 looked at, 2 put into the cart too, 3 bought too."""

    session: Ints
    item: Ints
    steps: Ints


def make_visits(rng: np.random.Generator, shoppers: Shoppers, n: int, days: int, end: float) -> Visits:
    """`n` sessions in the `days` days before `end` (seconds since 1970, UTC), by local hour and weekday."""
    users = len(shoppers.activity)
    user = draw(rng, shoppers.activity, n)
    if n >= 2 * users:
        user[:users] = np.arange(users)  # hardly anyone never comes
    hours_ago = np.arange(days * 24, 0, -1)
    start = np.empty(n)
    country = shoppers.country[user]
    for place, (_, _, ahead) in enumerate(COUNTRIES):
        local = (end - hours_ago * 3600) // 3600 + ahead
        weekday = (local // 24 + 3) % 7  # 1 January 1970 was a Thursday
        busy = HOURS[(local % 24).astype(int)] * WEEKDAYS[weekday.astype(int)]
        mine = np.flatnonzero(country == place)
        start[mine] = (hours_ago[draw(rng, busy, len(mine))] - rng.random(len(mine))) * 3600
    late = (rng.random(n) > start / (days * 86_400)).astype(np.int64)
    return Visits(user, start, late)


def make_views(rng: np.random.Generator, catalogue: Catalogue, shoppers: Shoppers, visits: Visits) -> Views:
    """What each session looks at: two or three of the shopper's categories, in one style, and a few odd things."""
    count = rng.geometric(1 / VIEWS, len(visits.user))
    session = np.repeat(np.arange(len(visits.user)), count)
    mood, style, tier = _intents(rng, shoppers, visits)
    category = mood[session, draw(rng, np.array([0.6, 0.28, 0.12]), len(session))]
    odd = rng.random(len(session)) < 0.1
    category = np.where(odd, draw(rng, shoppers.popularity, len(session)), category)
    wanted = style[session] * TIERS + tier[session]
    wanted = np.where(odd, rng.integers(STYLE_COUNT * TIERS, size=len(session)), wanted)
    item = _choose(rng, catalogue, category, wanted)
    # Nobody looks at an item twice in one session, nor before it is in the shop. An hour's room is left, because a
    # session that would run past the end is moved to an earlier start.
    seen = np.zeros(len(item), bool)
    seen[np.unique(session * len(catalogue.category) + item, return_index=True)[1]] = True
    kept = seen & (catalogue.listed[item] > visits.start[session] + 3600)
    liking = np.exp(np.einsum("vd,vd->v", catalogue.vector[item], catalogue.centers[style[session]])) * (1 - 0.5 * odd)
    carted = rng.random(len(item)) < CARTS_PER_VIEW * liking / liking[kept].mean()
    bought = carted & (rng.random(len(item)) < PURCHASES_PER_CART)
    return Views(session[kept], item[kept], (1 + carted + bought)[kept])


def _intents(rng: np.random.Generator, shoppers: Shoppers, visits: Visits) -> tuple[Ints, Ints, Ints]:
    """What each session is after: categories int64[S, 3], style int64[S], price tier int64[S]."""
    n, user, late = len(visits.user), visits.user, visits.late
    slots = draw(rng, SLOT_SHARE, 3 * n).reshape(n, 3)
    mood = shoppers.categories[user[:, None], late[:, None], slots]
    style = shoppers.styles[user, late, (rng.random(n) < 0.25).astype(np.int64)]
    style = np.where(rng.random(n) < 0.05, rng.integers(STYLE_COUNT, size=n), style)
    return mood, style, shoppers.tier[user]


def _choose(rng: np.random.Generator, catalogue: Catalogue, category: Ints, wanted: Ints) -> Ints:
    """int64[V]: an item of each category, drawn by its weight and by how near it is to the wanted style and tier."""
    chosen, luck = np.empty(len(category), np.int64), rng.random(len(category))
    tiers = np.arange(TIERS)
    for place in range(CATEGORIES):
        items, views = np.flatnonzero(catalogue.category == place), np.flatnonzero(category == place)
        pull = STYLE_PULL * catalogue.centers @ catalogue.vector[items].T  # [STYLE_COUNT, items]
        price = -TIER_PULL * np.abs(tiers[:, None] - catalogue.tier[items])  # [TIERS, items]
        odds = catalogue.weight[items] * np.exp(pull[:, None, :] + price[None, :, :]).reshape(-1, len(items))
        heights = np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)
        # Row r of the heights is raised to (r, r + 1], so that one search serves all rows.
        flat = (heights + np.arange(len(heights))[:, None]).ravel()
        found = np.searchsorted(flat, wanted[views] + luck[views]) - wanted[views] * len(items)
        chosen[views] = items[np.clip(found, 0, len(items) - 1)]
    return chosen
