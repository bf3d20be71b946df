"""How the engine of this process does, and what to expect of it: measured and forecast, side by side.

Once a second it is noted how far the counters are that the engine and the metrics keep anyway; so a minute can be
looked back at and nothing is added to a request but one figure. The forecast (`ranking.capacity`) is made in a thread
when somebody asks, and told again for a while.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from ranking.batching import Policy
from ranking.capacity import Forecaster
from service.engine_wire import Batches, EngineReport, Forecast, ForecastAt, Measured
from service.figures import Tally, quantile

EVERY_S, KEPT = 1.0, 60
"""Seconds between two notes, and how many are kept."""
FRESH_S = 10.0
"""How long a forecast is told again."""
ENOUGH = 20.0
"""Queries/s from which it can be told what one costs the event loop: below, what the loop does anyway stands before."""


@dataclass(frozen=True, slots=True)
class Note:
    """How far the counters were: seconds of the clock, of batches (and their CPU) and of the loop's CPU; queries, and
    the stage's buckets."""

    at: float
    queries: int
    busy_s: float
    cpu_s: float
    loop_s: float
    buckets: list[int]


class EngineWatch:
    """Watches the engine that `policy` is of. `stage` tallies the seconds of the stage `engine`.

    `own_core`: whether the engine has a thread beside the event loop's. Told and asked on the event loop only.
    """

    def __init__(
        self,
        policy: Policy,
        stage: Tally,
        *,
        own_core: bool,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
        loop_time: Callable[[], float] = time.thread_time,
    ) -> None:
        self.policy, self.stage, self.own_core, self.workers = policy, stage, own_core, workers
        self.clock, self.loop_time = clock, loop_time
        self.notes: deque[Note] = deque(maxlen=KEPT)
        self.loop_s: float | None = None
        self.lock = asyncio.Lock()
        self.forecast: tuple[float, Forecast] | None = None
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self.note()
            await asyncio.sleep(EVERY_S)

    def note(self) -> None:
        now = self.look()
        self.notes.append(now)
        then = self.notes[0]
        queries = now.queries - then.queries
        if queries >= ENOUGH * max(now.at - then.at, EVERY_S):
            batches_s = 0.0 if self.own_core else now.cpu_s - then.cpu_s
            self.loop_s = max(now.loop_s - then.loop_s - batches_s, 0.0) / queries

    def look(self) -> Note:
        policy = self.policy
        return Note(
            self.clock(), policy.queries, policy.busy_s, policy.cpu_s, self.loop_time(), list(self.stage.buckets)
        )  # fmt: skip

    async def report(self) -> EngineReport:
        """The last minute, and a forecast that is `FRESH_S` old at the most."""
        now = self.look()
        then = self.notes[0] if self.notes else now
        window_s = max(now.at - then.at, 1e-9)
        rate = (now.queries - then.queries) / window_s
        counts = [newer - older for newer, older in zip(now.buckets, then.buckets, strict=True)]
        measured = None
        if any(counts):
            measured = Measured(quantile(self.stage.bounds, counts, 0.5), quantile(self.stage.bounds, counts, 0.99))
        return EngineReport(
            datetime.now(UTC), os.getpid(), self.workers, window_s, rate,
            (now.busy_s - then.busy_s) / window_s, self.policy.slo_s, Batches.of(self.policy.figures()), measured,
            await self.expected(rate),
        )  # fmt: skip

    async def expected(self, rate: float) -> Forecast | None:
        async with self.lock:
            if self.loop_s is None and not self.own_core:  # the loop is the engine, and the half of it is not known
                return None
            if self.forecast is None or self.clock() - self.forecast[0] >= FRESH_S:
                found = await asyncio.to_thread(foresee, self.policy, rate, self.loop_s, self.own_core)
                self.forecast = self.clock(), found
            return self.forecast[1]


def foresee(policy: Policy, rate: float, loop_s: float | None, own_core: bool) -> Forecast:
    """At `rate` queries/s, at twice as many, and up to where the SLO is kept."""
    forecaster = Forecaster(policy, loop_s=loop_s or 0.0, own_core=own_core)
    now, twice = (ForecastAt.of(forecaster.at(each)) if each else None for each in (rate, 2 * rate))
    return Forecast(datetime.now(UTC), loop_s, now, twice, forecaster.capacity())
