"""Freshness as it was served, beside freshness in the store.

Every answer is tallied by the minute, placement, model version and view, so that any window up to a day can be asked
about without reading the log. What was served before this process started comes from the serving log.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from features.errors import FeatureStoreError
from features.freshness import Sampled, Sampler, ViewSpec, span
from features.user import ViewState
from service.errors import FieldError, InvalidRequest, UnknownView
from service.freshness_wire import (
    Ages,
    FreshnessReport,
    Group,
    Served,
    StoredSample,
    ViewFreshnessReport,
    ViewReport,
)

log = logging.getLogger(__name__)

WINDOWS = {"5m": 300.0, "1h": 3600.0, "24h": 86400.0}
DAY_S = 86400.0
STEPS = 16 / math.log(2)
"""Buckets of ages: sixteen to a doubling, so a quantile is within 4.5 % of the truth, and closer where ages vary."""

LEAST_S = 1e-3
LATE = 2
"""Minutes after which no answer is told any more as one of an hour that is over."""

BY = ("placement", "model_version", "hour", "minute")


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
        """The same in groups: hours and minutes in order of time, the others by their number of answers."""
        groups: defaultdict[str, list[Cell]] = defaultdict(list)
        for minute, (placement, version, _), cell in self.cells(view, window_s, now, fine=by == "minute"):
            start = minute - minute % 60 if by == "hour" else minute
            name = placement if by == "placement" else version if by == "model_version" else iso(start * 60)
            groups[name].append(cell)
        found = [(name, self.judge(view, cells)) for name, cells in groups.items()]
        found.sort(key=lambda one: one[0] if by in ("hour", "minute") else (-one[1].requests, one[0]))
        return [Group(**{field: getattr(one, field) for field in Served.__struct_fields__}, group=name)
                for name, one in found]  # fmt: skip

    def cells(self, view: str, window_s: float, now: float, *, fine: bool = False) -> Iterable[tuple[int, Key, Cell]]:
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


def restore(tallies: Tallies, log: Path, before: float) -> str | None:
    """Tallies what the serving log has of the day before `before` (seconds since the epoch). Blocks.

    Returns why it could not be read, if it could not: a service starts without it.
    """
    import duckdb

    from features.errors import InputError
    from service.commands.query import ask

    slos = ", ".join(f"('{view}', {slo})" for view, slo in tallies.slos.items() if slo is not None) or "('', 0.0)"
    sql = f"""
        WITH slos(view, slo) AS (VALUES {slos}), seen AS (
            SELECT floor(epoch(time) / 60)::BIGINT AS minute, placement, version, unnest(views, recursive := true)
            FROM answers WHERE date >= DATE '{datetime.fromtimestamp(before - DAY_S, UTC):%Y-%m-%d}'
            AND epoch(time) >= {before - DAY_S} AND epoch(time) < {before}
        )
        SELECT minute, placement, version, seen.view, status,
               CASE WHEN age_s IS NOT NULL THEN floor(ln(greatest(age_s, {LEAST_S})) * {STEPS!r})::BIGINT END AS bucket,
               count(*), count_if(coalesce(age_s <= slo, false))
        FROM seen LEFT JOIN slos ON slos.view = seen.view GROUP BY ALL
    """  # noqa: S608 - names of Feast views, and numbers of our own
    try:
        _, rows = ask(log, sql)
    except (duckdb.Error, InputError, OSError) as error:
        return f"the serving log could not be read, ages as served begin now: {' '.join(str(error).split())[:200]}"
    for minute, placement, version, view, status, bucket, count, within in rows:
        cell = tallies.minutes.setdefault(minute, defaultdict(Cell))[placement or "", version, view]
        cell.statuses[status] = cell.statuses.get(status, 0) + count
        cell.within += within
        if bucket is not None:
            cell.ages[bucket] = cell.ages.get(bucket, 0) + count
    tallies.hours.clear()
    for hour in {minute // 60 for minute in tallies.minutes if minute // 60 * 60 + 60 + LATE <= before / 60}:
        tallies.hour(hour)  # here, where it keeps nobody waiting
    return None


class Freshness:
    """What analysts ask of: views, samples of the store taken every `interval_s`, and tallies of answers."""

    def __init__(
        self, sampler: Sampler, tallies: Tallies, respec: Callable[[], Awaitable[Sequence[ViewSpec]]], *,
        interval_s: float = 15.0, now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.sampler, self.tallies, self.respec, self.now = sampler, tallies, respec, now
        self.interval_s = interval_s
        self.samples: dict[str, Sampled] = {}
        self.sample_error: str | None = None
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        """Samples until cancelled; every twentieth time it asks Feast again, too."""
        turn = 0
        while True:
            try:
                self.samples = {**self.samples, **await self.sampler.look()}
                self.sample_error = None
            except FeatureStoreError as error:
                self.sample_error, self.samples = str(error), {}
            await asyncio.sleep(self.interval_s)
            turn += 1
            if turn % 20 == 0:
                try:
                    specs = await self.respec()
                    self.sampler.take_up(specs)
                    self.tallies.slos = {one.view: one.slo_s for one in specs}
                except Exception as error:  # noqa: BLE001 - whatever Feast raises, the store must still be sampled
                    log.warning("the feature views stay as they were: %s: %s", type(error).__name__, error)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.sampler.pipeline.close()

    def report(self) -> FreshnessReport:
        now = self.now()
        return FreshnessReport(self.sampler.project, utc(now), self.sample_error, [
            ViewFreshnessReport(
                one.view, one.entity, one.slo_s, one.max_age_s, maybe(one.last_materialized),
                maybe(self.sampler.newest[one.view]), stored(self.samples.get(one.view)),
                {name: self.tallies.served(one.view, window, now) for name, window in WINDOWS.items()},
            )
            for one in self.sampler.specs
        ])  # fmt: skip

    def view(self, name: str, window: str, by: str) -> ViewReport:
        """Raises UnknownView or InvalidRequest."""
        known = [one.view for one in self.sampler.specs]
        if name not in known:
            raise UnknownView(f"no feature view {name!r}; there are {', '.join(known)}")
        errors = []
        seconds = span(window)
        if not seconds or seconds > DAY_S:
            errors.append(FieldError("window", f"{window[:50]!r} is no span such as 5m, 1h or 24h, at most a day"))
        if by not in BY:
            errors.append(FieldError("by", f"{by[:50]!r} is none of {', '.join(BY)}"))
        if errors or seconds is None:
            raise InvalidRequest(*errors)
        return ViewReport(name, seconds, by, self.tallies.grouped(name, seconds, by, self.now()))

    def ages(self) -> dict[str, float]:
        """For each view with any row, seconds since its newest event."""
        now = self.now()
        return {view: max(0.0, now - at) for view, at in self.sampler.newest.items() if at is not None}


def stored(found: Sampled | None) -> StoredSample | None:
    if found is None:
        return None
    ages = None if found.age_s is None else Ages(*found.age_s)
    return StoredSample(utc(found.at), found.entities, found.missing, found.outside_max_age, found.within_slo, ages)


def utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def maybe(at: float | None) -> datetime | None:
    return None if at is None else utc(at)


def iso(at: float) -> str:
    return utc(at).isoformat().replace("+00:00", "Z")
