"""Feature functions: pure, over one entity's history of events, evaluated at any times.

Each takes the entity's events as parallel arrays, oldest first, and the times `at` (int64 microseconds since the epoch,
ascending) at which the features are wanted; an event counts from its own instant on. Training replays history through
them and a consumer of live events calls the same ones, so there is one definition of every feature.
"""

from __future__ import annotations

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


def window_counts(timestamps: Times, at: Times, window: int) -> npt.NDArray[np.int64]:
    """How many events lie in (at - window, at], for each `at`."""
    return np.searchsorted(timestamps, at, "right") - np.searchsorted(timestamps, at - window, "right")


def activity(
    timestamps: Times, kinds: npt.NDArray[np.str_], spend: npt.NDArray[np.float64], at: Times
) -> dict[str, npt.NDArray[Any]]:
    """A user's counters: `{views,carts,purchases}_{1h,24h,7d,30d}` int64[m], and `spend_30d` float32[m].

    `spend` is what each event paid (0 unless it is a purchase).
    """
    features: dict[str, npt.NDArray[Any]] = {}
    for name, kind in KINDS.items():
        of_kind = timestamps[kinds == kind]
        for window, size in WINDOWS.items():
            features[f"{name}_{window}"] = window_counts(of_kind, at, size)
    total = np.concatenate([[0.0], np.cumsum(spend)])
    until = total[np.searchsorted(timestamps, at, "right")]
    before = total[np.searchsorted(timestamps, at - WINDOWS["30d"], "right")]
    features["spend_30d"] = (until - before).astype(np.float32)
    return features


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
    features = {f"events_{name}": window_counts(timestamps, at, WINDOWS[name]) for name in ("24h", "7d", "30d")}
    return features | {f"purchases_{name}": window_counts(bought, at, WINDOWS[name]) for name in ("7d", "30d")}
