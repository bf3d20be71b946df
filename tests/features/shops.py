"""A small shop for tests, in the canonical form of `features.shop`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from features.shop import EVENTS, ITEMS, USERS, Shop, sorted_events

START = datetime(2026, 1, 10, tzinfo=UTC)


def shop(users: int = 12, items: int = 30, events: int = 600, days: float = 40.0, seed: int = 0,
         start: datetime = START) -> Shop:  # fmt: skip
    """Random events, several at one instant, over `days` from `start`."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.integers(0, int(days * 86400), events))
    seconds[1::7] = seconds[:-1:7][: len(seconds[1::7])]
    kinds = rng.choice(["view", "cart", "purchase"], events, p=[0.7, 0.15, 0.15])
    table = pa.table(
        {
            "user_id": [f"u{i}" for i in rng.integers(0, users, events)],
            "item_id": [f"i{i:05d}" for i in rng.integers(0, items, events)],
            "event": kinds,
            "timestamp": [start + timedelta(seconds=int(s)) for s in seconds],
            "session_id": [None if s % 3 else f"s{s}" for s in seconds],
            "quantity": [None if kind != "purchase" else 2.0 for kind in kinds],
            "price": [None] * events,
        },
        schema=EVENTS,
    )
    catalogue = pa.table(
        {
            "item_id": [f"i{i:05d}" for i in range(items)],
            "title": [f"Item {i}" for i in range(items)],
            "category": ["" if i == 3 else f"c{i % 4}" for i in range(items)],
            "price": [None if i == 5 else float(i + 1) for i in range(items)],
            "in_stock": [i != 7 for i in range(items)],
        },
        schema=ITEMS,
    )
    people = pa.table(
        {"user_id": [f"u{i}" for i in range(users)], "country": [["DE", "FR", ""][i % 3] for i in range(users)]},
        schema=USERS,
    )
    return Shop(sorted_events(table), catalogue, people)
