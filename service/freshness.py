"""Freshness in the store, beside freshness as it was served."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from features.errors import FeatureStoreError
from features.freshness import Sampled, Sampler, ViewSpec, span
from service.errors import FieldError, InvalidRequest, UnknownView
from service.freshness_wire import Ages, FreshnessReport, StoredSample, ViewFreshnessReport, ViewReport
from service.served_log import ServedLog
from service.tallies import DAY_S, Tallies, utc

log = logging.getLogger(__name__)

WINDOWS = {"5m": 300.0, "1h": 3600.0, "24h": 86400.0}
BY = ("placement", "model_version", "hour", "minute")


class Freshness:
    """What analysts ask of: views, samples of the store taken every `interval_s`, tallies of answers, and, for windows
    that are longer than those, the serving log (None where it is off)."""

    def __init__(
        self, sampler: Sampler, tallies: Tallies, respec: Callable[[], Awaitable[Sequence[ViewSpec]]], *,
        log: ServedLog | None = None, interval_s: float = 15.0, now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.sampler, self.tallies, self.respec, self.now = sampler, tallies, respec, now
        self.log, self.interval_s = log, interval_s
        self.samples: dict[str, Sampled] = {}
        self.sample_error: str | None = None
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        """Samples until cancelled, whatever is raised; every twentieth time it asks Feast again, too."""
        turn = 0
        while True:
            try:
                self.samples = {**self.samples, **await self.sampler.look()}
                self.sample_error = None
            except FeatureStoreError as error:
                self.sample_error, self.samples = str(error), {}
            except Exception as error:
                said, self.samples = f"{type(error).__name__}: {error}", {}
                if said != self.sample_error:  # a mistake of ours, or a store that holds what nobody foresaw: seen once
                    log.exception("the store could not be sampled")
                self.sample_error = said
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

    async def view(self, name: str, window: str, by: str) -> ViewReport:
        """Raises UnknownView, InvalidRequest or LogUnreadable."""
        seconds, now = self.checked(name, window, by), self.now()
        if seconds <= DAY_S or self.log is None:
            return ViewReport(name, seconds, by, self.tallies.grouped(name, seconds, by, now))
        return ViewReport(name, seconds, by, await self.log.grouped(self.tallies, name, seconds, by, now))

    def checked(self, name: str, window: str, by: str) -> float:
        """The window in seconds. Raises UnknownView or InvalidRequest."""
        known = [one.view for one in self.sampler.specs]
        if name not in known:
            raise UnknownView(f"no feature view {name!r}; there are {', '.join(known)}")
        errors = []
        seconds = span(window)
        most = DAY_S if self.log is None else max(DAY_S, self.log.keep_days * DAY_S)
        if not seconds or seconds > most:
            why = "; the serving log is off" if self.log is None else ""
            said = f"{window[:50]!r} is no span such as 5m, 1h or 7d, at most {most / DAY_S:g}d{why}"
            errors.append(FieldError("window", said))
        if by not in BY:
            errors.append(FieldError("by", f"{by[:50]!r} is none of {', '.join(BY)}"))
        if errors or seconds is None:
            raise InvalidRequest(*errors)
        return seconds

    def ages(self) -> dict[str, float]:
        """For each view with any row, seconds since its newest event."""
        now = self.now()
        return {view: max(0.0, now - at) for view, at in self.sampler.newest.items() if at is not None}


def stored(found: Sampled | None) -> StoredSample | None:
    if found is None:
        return None
    ages = None if found.age_s is None else Ages(*found.age_s)
    return StoredSample(utc(found.at), found.entities, found.missing, found.outside_max_age, found.within_slo, ages)


def maybe(at: float | None) -> datetime | None:
    return None if at is None else utc(at)
