"""The answer of Feast's API, put together column by column as rows come: each piece is JSON at once, so that an answer
of a hundred thousand values is no hundred thousand objects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from features.lookup import Lookup, Rows

NO_TIME = b'"1970-01-01T00:00:00Z"'
PRESENT = b'"PRESENT"'


class Columns:
    """Takes the rows of a lookup's views, some entities at a time."""

    def __init__(self, lookup: Lookup, *, empty_lists: bool) -> None:
        """`empty_lists`: whether an empty list is one in the answer, else null."""
        self.lookup, self.empty_lists = lookup, empty_lists
        size = sum(len(one.features) for one in lookup.views)
        self.values: list[list[bytes]] = [[] for _ in range(size)]
        self.statuses: list[list[bytes]] = [[] for _ in range(size)]
        self.times: list[list[bytes]] = [[] for _ in lookup.views]

    def add(self, found: Sequence[Rows]) -> None:
        at = 0
        for view, rows in enumerate(found):
            self.times[view].append(b",".join([shown(one) for one in rows.times]))
            for values, statuses in zip(rows.values, rows.statuses, strict=True):
                if not self.empty_lists:
                    values = [None if one == [] else one for one in values]
                self.values[at].append(inner(values))
                self.statuses[at].append(inner(statuses))
                at += 1

    def body(self, *, versions: bool) -> bytes:
        """The whole answer. `versions`: with the views' versions."""
        names = [one.name for one in self.lookup.columns]
        names += [name for one in self.lookup.views for name in one.names]
        metadata: dict[str, Any] = {"feature_names": names}
        if versions:
            metadata["feature_view_metadata"] = [
                {"name": one.alias} | ({"version": one.view.version} if one.view.version else {})
                for one in self.lookup.views
            ]
        rows = self.lookup.rows
        present, never = b",".join([PRESENT] * rows), b",".join([NO_TIME] * rows)
        results = [vector([inner(one.values)], [present], [never]) for one in self.lookup.columns]
        at = 0
        for view, times in zip(self.lookup.views, self.times, strict=True):
            for _ in view.features:
                results.append(vector(self.values[at], self.statuses[at], times))
                at += 1
        return b'{"results":[%b],"metadata":%b}' % (b",".join(results), orjson.dumps(metadata))


def vector(values: list[bytes], statuses: list[bytes], times: list[bytes]) -> bytes:
    parts = (b",".join(values), b",".join(statuses), b",".join(times))
    return b'{"values":[%b],"statuses":[%b],"event_timestamps":[%b]}' % parts


def inner(values: Sequence[Any]) -> bytes:
    """A list's JSON, without its brackets."""
    return orjson.dumps(values)[1:-1]


@lru_cache(maxsize=1000)
def shown(at: float) -> bytes:
    """Seconds since the epoch as Feast writes times: UTC, with as many of three or six digits as are needed."""
    if not at:
        return NO_TIME
    time = datetime.fromtimestamp(at, UTC)
    precision = "seconds" if not time.microsecond else "microseconds" if time.microsecond % 1000 else "milliseconds"
    return f'"{time.replace(tzinfo=None).isoformat(timespec=precision)}Z"'.encode()
