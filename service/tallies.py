"""Freshness as it was served.

Every answer is tallied by the minute, placement, model version and view, so that any window up to a day can be asked
about without reading the log.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import groupby

from features.user import ViewState
from service.freshness_wire import Ages, Group, Served

DAY_S = 86400.0
STEPS = 16 / math.log(2)
"""Buckets of ages: sixteen to a doubling, so a quantile is within 4.5 % of the truth, and closer where ages vary."""

LEAST_S = 1e-3
LATE = 2
"""Minutes after which no answer is told any more as one of an hour that is over."""


class Cell:
    """A view behind the answers of one minute, placement and model version."""

    __slots__ = ("ages", "statuses", "within")

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self.ages: dict[int, int] = {}
        self.within = 0

    def merge(self, other: Cell) -> None:
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        for bucket, count in other.ages.items():
            self.ages[bucket] = self.ages.get(bucket, 0) + count
        self.within += other.within


Key = tuple[str, str, str]
"""Placement, model version, view."""
Tallied = tuple[int, Key, Cell]
"""With the minute since the epoch in which it begins."""


def bucket_of(age_s: float) -> int:
    return math.floor(math.log(max(age_s, LEAST_S)) * STEPS)


class Tallies:
    """A day of answers. Told on the event loop only. `slos` are the views' SLOs in seconds."""

    def __init__(self, slos: Mapping[str, float | None]) -> None:
        self.slos = slos
        self.minutes: dict[int, defaultdict[Key, Cell]] = {}
        self.hours: dict[int, defaultdict[Key, Cell]] = {}

    def add(self, at: float, placement: str, version: str, views: Mapping[str, ViewState]) -> None:
        """One answer at `at` seconds since the epoch."""
        cells = self.minute(int(at // 60))
        for view, state in views.items():
            cell = cells[placement, version, view]
            cell.statuses[state.status] = cell.statuses.get(state.status, 0) + 1
            age = state.age_s
            if age is not None:
                bucket = bucket_of(age)
                cell.ages[bucket] = cell.ages.get(bucket, 0) + 1
                slo = self.slos.get(view)
                cell.within += slo is not None and age <= slo

    def minute(self, minute: int) -> defaultdict[Key, Cell]:
        """The cells of a minute; a new one lets go of those older than a day."""
        if minute not in self.minutes:
            self.minutes[minute] = defaultdict(Cell)
            self.hours.pop(minute // 60, None)
            first = int(minute - DAY_S // 60)
            for old in [one for one in self.minutes if one < first]:
                del self.minutes[old]
            for old in [one for one in self.hours if one < first // 60]:
                del self.hours[old]
        return self.minutes[minute]

    def hour(self, hour: int) -> defaultdict[Key, Cell]:
        """An hour that is over, summed when first asked for: a day's minutes would hold the event loop for 0.1 s."""
        if hour not in self.hours:
            whole = self.hours[hour] = defaultdict(Cell)
            for minute in range(hour * 60, hour * 60 + 60):
                for key, cell in self.minutes.get(minute, {}).items():
                    whole[key].merge(cell)
        return self.hours[hour]

    def served(self, view: str, window_s: float, now: float) -> Served:
        """The view behind the answers of the last `window_s` seconds, from the whole minute in which they begin."""
        return self.judge(view, (cell for _, _, cell in self.cells(view, window_s, now)))

    def grouped(self, view: str, window_s: float, by: str, now: float) -> list[Group]:
        """The same in groups."""
        return self.group(view, self.cells(view, window_s, now, fine=by == "minute"), by)

    def group(self, view: str, tallied: Iterable[Tallied], by: str) -> list[Group]:
        """Hours and minutes in order of time, the others by their number of answers."""
        groups: defaultdict[str, list[Cell]] = defaultdict(list)
        for minute, (placement, version, _), cell in tallied:
            start = minute - minute % 60 if by == "hour" else minute
            name = placement if by == "placement" else version if by == "model_version" else iso(start * 60)
            groups[name].append(cell)
        found = [(name, self.judge(view, cells)) for name, cells in groups.items()]
        found.sort(key=lambda one: one[0] if by in ("hour", "minute") else (-one[1].requests, one[0]))
        return [Group(**{field: getattr(one, field) for field in Served.__struct_fields__}, group=name)
                for name, one in found]  # fmt: skip

    def cells(self, view: str, window_s: float, now: float, *, fine: bool = False) -> Iterable[Tallied]:
        """With the minute in which each begins: hours that are over, unless `fine`, and the minutes around them."""
        first = int((now - window_s) // 60)
        for hour, minutes in groupby(sorted(one for one in self.minutes if one >= first), lambda one: one // 60):
            whole = not fine and first <= hour * 60 <= now / 60 - 60 - LATE
            parts = [(hour * 60, self.hour(hour))] if whole else [(one, self.minutes[one]) for one in minutes]
            for start, cells in parts:
                for key, cell in cells.items():
                    if key[2] == view:
                        yield start, key, cell

    def judge(self, view: str, cells: Iterable[Cell]) -> Served:
        total = Cell()
        for cell in cells:
            total.merge(cell)
        requests, aged = sum(total.statuses.values()), sum(total.ages.values())
        missing, outside, unreadable, not_read = (
            total.statuses.get(status, 0) / max(requests, 1)
            for status in ("missing", "outside_max_age", "unreadable", "not_read")
        )
        within = total.within / aged if aged and self.slos.get(view) is not None else None
        ages = Ages(*(quantile(total.ages, q) for q in (0.5, 0.95, 0.99))) if aged else None
        return Served(requests, missing, outside, unreadable, not_read, within, ages)


def quantile(buckets: Mapping[int, int], q: float) -> float:
    """By geometric interpolation inside the bucket that holds it."""
    wanted, below = q * sum(buckets.values()), 0
    for bucket, count in sorted(buckets.items()):
        if below + count >= wanted:
            return math.exp((bucket + (wanted - below) / count) / STEPS)
        below += count
    raise AssertionError("the buckets hold every count")


def utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def iso(at: float) -> str:
    return utc(at).isoformat().replace("+00:00", "Z")
