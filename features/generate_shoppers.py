"""The made-up shoppers: what each likes at first and at last, and how often each comes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.generate_items import CATEGORIES, DEPARTMENT, STYLE_COUNT, TIERS, Floats, Ints
from features.generate_words import COUNTRIES, DEPARTMENTS

SLOTS = 6
SLOT_SHARE = np.array([0.36, 0.24, 0.16, 0.11, 0.08, 0.05])  # of a shopper's interest, favourite first


@dataclass(frozen=True, slots=True)
class Shoppers:
    """What U shoppers like. The second axis of `categories` and `styles` is time: early and late tastes.

    categories int64[U, 2, SLOTS], favourite first; styles int64[U, 2, 2], favourite first; tier int64[U] of prices;
    activity float64[U], relative, heavy-tailed; country int64[U] in COUNTRIES; popularity float64[CATEGORIES], sum 1.
    """

    categories: Ints
    styles: Ints
    tier: Ints
    activity: Floats
    country: Ints
    popularity: Floats


def make_shoppers(rng: np.random.Generator, n: int) -> Shoppers:
    """`n` shoppers, each drawn to one department, and to a popular category more than to another."""
    popularity = rng.permutation((np.arange(CATEGORIES) + 3.0) ** -0.7)
    popularity /= popularity.sum()
    home = rng.integers(len(DEPARTMENTS), size=n)
    # Adding Gumbel noise to log weights and ranking draws without replacement in proportion to the weights.
    score = np.log(popularity) + 2.0 * (DEPARTMENT[None, :] == home[:, None]) + rng.gumbel(size=(n, CATEGORIES))
    ranked = np.argsort(-score, axis=1)
    # Over the weeks the second and the fourth interest give way to new ones.
    categories = np.stack([ranked[:, :SLOTS], ranked[:, [0, 6, 2, 7, 4, 5]]], axis=1)
    styles = np.argsort(rng.random((n, STYLE_COUNT)), axis=1)
    return Shoppers(
        categories=categories,
        styles=np.stack([styles[:, :2], styles[:, [0, 2]]], axis=1),
        tier=rng.integers(TIERS, size=n),
        activity=np.minimum((1 - rng.random(n)) ** (-1 / 1.4), 60.0),
        country=rng.choice(len(COUNTRIES), n, p=[share for _, share, _ in COUNTRIES]),
        popularity=popularity,
    )


def draw(rng: np.random.Generator, shares: NDArray[np.float64], n: int) -> Ints:
    """int64[n]: places in `shares`, drawn in proportion to them."""
    heights = np.cumsum(shares)
    places: Ints = np.searchsorted(heights, rng.random(n) * heights[-1], side="right")
    return np.minimum(places, len(shares) - 1)
