"""A made-up shop, the same for the same seed, in which personal taste can be told from popularity.

Shoppers have a few categories and styles that they like and a price level; tastes drift over the weeks. A session looks
for one style in two or three of the shopper's categories; which items it meets follows Zipf's law and the item's own
style. So what a shopper looked at tells what comes next, better than what is popular does, and items seen together
resemble each other.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from features.columns import TIMESTAMP
from features.errors import InputError
from features.generate_items import CATEGORIES, Catalogue, Floats, Ints, ids, make_catalogue
from features.generate_shoppers import Shoppers, make_shoppers
from features.generate_visits import VIEWS, Views, Visits, make_views, make_visits
from features.generate_words import COUNTRIES
from features.progress import Progress, Report, silent
from features.shop import EVENTS, USERS, Shop, sorted_events

EVENT_NAMES = pa.array(["view", "cart", "purchase"])
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEPS = 4


def generate_shop(
    seed: int = 7,
    items: int = 10_000,
    users: int = 5_000,
    events: int = 300_000,
    days: int = 60,
    until: datetime | None = None,
    progress: Progress = silent,
) -> tuple[Shop, Report]:
    """A shop of exactly so many items, users and events, the last at or before `until` (naive: UTC; None: now).

    About 85 events in 100 are views, 10 carts, 5 purchases. Items have the columns rating, color, material and age_days
    besides. The same arguments, `until` included, give the same shop. `progress` counts steps.
    Raises InputError when a number is too small or too large.
    """
    until = datetime.now(UTC) if until is None else until
    until = until.replace(tzinfo=UTC) if until.tzinfo is None else until
    check_sizes(seed=seed, items=items, users=users, events=events, days=days, until=until)
    # A stream of luck for each part: to change one leaves the others as they are.
    luck = np.random.default_rng(seed).spawn(4)
    progress(0, STEPS)
    catalogue = make_catalogue(luck[0], items, days)
    progress(1, STEPS)
    shoppers = make_shoppers(luck[1], users)
    progress(2, STEPS)
    visits, views = _visits(luck[2], catalogue, shoppers, events, days, until)
    progress(3, STEPS)
    table = _events(luck[3], catalogue, visits, views, users, events, until)
    shop = Shop(sorted_events(table), catalogue.table, _users(shoppers))
    progress(STEPS, STEPS)
    report = Report(wrote={"events": events, "items": items, "users": users})
    report.notes.append(f"made up with seed {seed}: {days} days up to {until:%Y-%m-%d %H:%M}")
    return shop, report


def check_sizes(*, seed: int, items: int, users: int, events: int, days: int, until: datetime | None = None) -> None:
    """Raises InputError naming the command's option when no shop of these sizes can be made up."""
    for name, number, least in (
        ("seed", seed, 0),
        ("items", items, CATEGORIES),
        ("users", users, 1),
        ("events", events, 1),
        ("days", days, 1),
    ):
        if number < least:
            raise InputError(f"--{name} must be at least {least}, not {number}")
    most = ((until or datetime.now(UTC)) - EPOCH).days
    if days > most:
        raise InputError(f"--days must be at most {most}, not {days}: no event may lie before {EPOCH:%Y}")


def _visits(
    rng: np.random.Generator, catalogue: Catalogue, shoppers: Shoppers, events: int, days: int, until: datetime
) -> tuple[Visits, Views]:
    """Sessions that make at least `events` events; how many that takes is a matter of luck."""
    sessions = int(events / VIEWS) + 50
    while True:
        visits = make_visits(rng, shoppers, sessions, days, until.timestamp())
        views = make_views(rng, catalogue, shoppers, visits)
        if views.steps.sum() >= events:
            return visits, views
        sessions = int(sessions * 1.3)


def _events(
    rng: np.random.Generator, catalogue: Catalogue, visits: Visits, views: Views, users: int, n: int, until: datetime
) -> pa.Table:
    """The first `n` events: each view, after some a cart, and after some of those a purchase."""
    view = np.repeat(np.arange(len(views.steps)), views.steps)
    step = np.arange(len(view)) - np.searchsorted(view, view)  # 0 view, 1 cart, 2 purchase
    view, step = view[:n], step[:n]
    session, item = views.session[view], views.item[view]
    ago, name = _timed(visits, session, np.array([4, 3, 8])[step] + rng.exponential(np.array([40, 15, 60])[step]))
    quantity = 1 + np.floor(rng.exponential(0.35, len(views.steps)))[view]
    milliseconds = (until - EPOCH) // timedelta(milliseconds=1) - np.ceil(ago * 1000).astype(np.int64)
    columns = [
        pa.array(ids("u", users)).take(pa.array(visits.user[session])),
        catalogue.table["item_id"].combine_chunks().take(pa.array(item)),
        EVENT_NAMES.take(pa.array(step)),
        pa.array(milliseconds * 1000).cast(TIMESTAMP),
        pa.array(ids("s", len(visits.user))).take(pa.array(name)),
        pa.array(quantity, mask=step == 0),
        pa.array(catalogue.price[item]),
    ]
    return pa.table(columns, schema=EVENTS)


def _timed(visits: Visits, session: Ints, gap: Floats) -> tuple[Floats, Ints]:
    """(float64[N] seconds before the end, int64[N] number of the session by its start) of N events.

    `session` rises; `gap` is the time since the event before, in seconds. A session that would run past the end starts
    that much earlier.
    """
    first = np.searchsorted(session, session)
    passed = np.cumsum(gap)
    passed -= passed[first]
    last = np.searchsorted(session, session, side="right") - 1
    start = np.maximum(visits.start[session], passed[last])
    number = np.empty(len(visits.start), np.int64)
    number[np.argsort(-visits.start, kind="stable")] = np.arange(len(visits.start))
    return start - passed, number[session]


def _users(shoppers: Shoppers) -> pa.Table:
    names = pa.array([name for name, _, _ in COUNTRIES])
    return pa.table([pa.array(ids("u", len(shoppers.country))), names.take(pa.array(shoppers.country))], schema=USERS)
