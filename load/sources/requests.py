"""The requests that sources make (docs/api.md), and how they come into the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from load.traffic_log import Entry

JSON = {"Content-Type": "application/json"}
MOST_EVENTS = 1_000
"""In one body: docs/api.md."""


def recommendation(at_us: int, user: str, placement: str, count: int, item: str | None = None) -> Entry:
    """`POST /v1/recommendations`; `item` is the item in view, for placements that need one."""
    asked: dict[str, Any] = {"user_id": user, "placement": placement, "count": count}
    if item is not None:
        asked["item_id"] = item
    return Entry(at_us, "POST", "/v1/recommendations", JSON, msgspec.json.encode(asked).decode())


def events(at_us: int, rows: Sequence[dict[str, Any]]) -> Iterator[Entry]:
    """`POST /v1/events`, as many as the rows need. No row has a timestamp: it happens when it is played."""
    for start in range(0, len(rows), MOST_EVENTS):
        body = msgspec.json.encode({"events": rows[start : start + MOST_EVENTS]}).decode()
        yield Entry(at_us, "POST", "/v1/events", JSON, body)


def in_order(entries: Iterable[tuple[int, Entry]], horizon_us: int) -> Iterator[Entry]:
    """Sort entries, each given with a time that never falls and is at most `horizon_us` later than the entry's own.

    Holds those of one horizon only. Of entries of the same time the first given comes first.
    """
    waiting: list[tuple[int, int, Entry]] = []
    for number, (now, entry) in enumerate(entries):
        while waiting and waiting[0][0] < now - horizon_us:
            yield heapq.heappop(waiting)[2]
        heapq.heappush(waiting, (entry.at_us, number, entry))
    while waiting:
        yield heapq.heappop(waiting)[2]
