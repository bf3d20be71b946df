"""Feature functions: pure, over one entity's history of events, evaluated at any times.

Each takes the entity's events as parallel arrays, oldest first, and the times `at` (int64 microseconds since the epoch,
ascending) at which the features are wanted; an event counts from its own instant on. Training replays history through
them; the consumer of live events calls those that end in `_now`, the same at one instant, which the tests hold equal.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]

HOUR = 3_600_000_000
DAY = 24 * HOUR
WINDOWS = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
KINDS = {"views": "view", "carts": "cart", "purchases": "purchase"}
RECENT, PURCHASED = 20, 50
SIZES = np.array(list(WINDOWS.values()), np.int64)
EDGES = np.array([[0], *([size] for size in WINDOWS.values())], np.int64)
COUNTERS = [f"{name}_{window}" for name in KINDS for window in WINDOWS]
CODES = {kind: code for code, kind in enumerate(KINDS.values(), 1)}
KIND_COLUMN = np.array([[code] for code in CODES.values()], np.int8)


def window_counts(timestamps: Times, at: Times, windows: Times) -> npt.NDArray[np.int64]:
    """How many events lie in (at - window, at], int64[W, m] for W windows and m times."""
    edges = (at - windows[:, None]).ravel()
    since = timestamps.searchsorted(edges, "right").reshape(len(windows), len(at))
    counts: npt.NDArray[np.int64] = timestamps.searchsorted(at, "right") - since
    return counts


def kind_codes(kinds: Sequence[str]) -> npt.NDArray[np.int8]:
    """The places of event kinds in KINDS, from 1; 0 for a kind that no counter counts."""
    return np.array([CODES.get(kind, 0) for kind in kinds], np.int8)


def activity(
    timestamps: Times, kinds: npt.NDArray[np.int8], spend: npt.NDArray[np.float64], at: Times
) -> dict[str, npt.NDArray[Any]]:
    """A user's counters: `{views,carts,purchases}_{1h,24h,7d,30d}` int64[m], and `spend_30d` float32[m].

    `kinds` are `kind_codes`, `spend` is what each event paid (0 unless it is a purchase).
    """
    # Running totals of each kind and of the spend: one search for all windows' ends, then differences.
    total = np.zeros((len(KINDS) + 1, len(timestamps) + 1))
    np.equal(kinds, KIND_COLUMN, out=total[:-1, 1:])
    total[-1, 1:] = spend
    total.cumsum(axis=1, out=total)
    places = timestamps.searchsorted((at - EDGES).ravel(), "right").reshape(len(EDGES), len(at))
    totals = total[:, places]  # [kinds + spend, now and each window, m]
    found = totals[:, :1] - totals[:, 1:]
    counts = found[:-1].astype(np.int64).reshape(len(COUNTERS), len(at))
    return {**dict(zip(COUNTERS, counts, strict=True)), "spend_30d": found[-1, -1].astype(np.float32)}


def activity_now(
    timestamps: Sequence[int], kinds: Sequence[str], spend: Sequence[float], at: int
) -> dict[str, int | float]:
    """`activity` at one instant, over plain lists: for a shopper's few events numpy's price a call is six times this.

    The spend is not rounded to float32.
    """
    end = bisect_right(timestamps, at)
    slices = [kinds[bisect_right(timestamps, at - size) : end] for size in WINDOWS.values()]
    found: dict[str, int | float] = {
        f"{name}_{window}": part.count(kind)
        for name, kind in KINDS.items()
        for window, part in zip(WINDOWS, slices, strict=True)
    }
    found["spend_30d"] = math.fsum(spend[end - len(slices[-1]) : end])
    return found


def recent_now(items: Sequence[Any], purchase: Sequence[bool]) -> tuple[list[Any], list[Any]]:
    """`recent` at the newest event: the last distinct items, counted from the end."""
    seen: dict[Any, None] = {}
    bought: dict[Any, None] = {}
    for item, paid in zip(reversed(items), reversed(purchase), strict=True):
        if len(seen) < RECENT:
            seen.setdefault(item)
        if paid and len(bought) < PURCHASED:
            bought.setdefault(item)
    return list(seen)[::-1], list(bought)[::-1]


def recent(
    timestamps: Times, items: Sequence[Any], purchase: npt.NDArray[np.bool_], at: Times
) -> tuple[list[list[Any]], list[list[Any]]]:
    """A user's last `RECENT` distinct items and last `PURCHASED` distinct bought ones at each `at`, newest last.

    An item touched again moves to the end.
    """
    seen: dict[Any, None] = {}
    bought: dict[Any, None] = {}
    seen_at, bought_at = [], []
    place = 0
    for end in np.searchsorted(timestamps, at, "right").tolist():
        while place < end:
            push(seen, items[place], RECENT)
            if purchase[place]:
                push(bought, items[place], PURCHASED)
            place += 1
        seen_at.append(list(seen))
        bought_at.append(list(bought))
    return seen_at, bought_at


def push(last: dict[Any, None], item: Any, size: int) -> None:
    last.pop(item, None)
    last[item] = None
    if len(last) > size:
        del last[next(iter(last))]


def profile(
    timestamps: Times,
    prices: npt.NDArray[np.float64],
    categories: Sequence[str],
    orders: Sequence[str | None],
    at: Times,
) -> dict[str, list[Any]]:
    """A user's slow features at each `at`: tenure_days, orders, avg_price, top_category.

    `prices` and `categories` are those of each event's item (NaN and '' where unknown); `orders` the order that a
    purchase belongs to, None for other events. avg_price is None until a price is known.
    """
    features: dict[str, list[Any]] = {"tenure_days": [], "orders": [], "avg_price": [], "top_category": []}
    placed: set[str] = set()
    counts: Counter[str] = Counter()
    total, priced, place = 0.0, 0, 0
    for when, end in zip(at.tolist(), np.searchsorted(timestamps, at, "right").tolist(), strict=True):
        while place < end:
            if (order := orders[place]) is not None:
                placed.add(order)
            if categories[place]:
                counts[categories[place]] += 1
            if prices[place] == prices[place]:
                total, priced = total + float(prices[place]), priced + 1
            place += 1
        features["tenure_days"].append((when - int(timestamps[0])) / DAY if end else 0.0)
        features["orders"].append(len(placed))
        features["avg_price"].append(total / priced if priced else None)
        features["top_category"].append(counts.most_common(1)[0][0] if counts else "")
    return features


def item_popularity(timestamps: Times, purchase: npt.NDArray[np.bool_], at: Times) -> dict[str, npt.NDArray[np.int64]]:
    """An item's `events_{24h,7d,30d}` and `purchases_{7d,30d}` at each `at`, int64[m]."""
    bought = timestamps[purchase]
    events, purchases = window_counts(timestamps, at, SIZES[1:]), window_counts(bought, at, SIZES[2:])
    names = (*(f"events_{name}" for name in ("24h", "7d", "30d")), *(f"purchases_{name}" for name in ("7d", "30d")))
    return dict(zip(names, (*events, *purchases), strict=True))
