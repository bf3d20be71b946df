"""A traffic log dealt out among several players that send alike, so that together they keep its schedule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from load.traffic_log import Entry


def typed(entry: Entry) -> dict[str, str]:
    """The headers of a request whose body is JSON where nothing says what it is."""
    if entry.body is None or any(name.lower() == "content-type" for name in entry.headers):
        return entry.headers
    return {**entry.headers, "Content-Type": "application/json"}


def share(entries: Iterable[Entry], index: int, of: int, speed: float) -> Iterator[tuple[float, Entry]]:
    """Every `of`-th request from the `index`-th (from 0), with its time in seconds from the log's first request.

    Every player reads the whole log and plays its own part: nobody has to deal. `speed` 2 plays it twice as fast.
    """
    entries = iter(entries)
    first = next(entries, None)
    if first is None:
        return
    if index == 0:
        yield 0.0, first
    for entry in islice(entries, (index - 1) % of, None, of):
        yield (entry.at_us - first.at_us) / 1e6 / speed, entry
