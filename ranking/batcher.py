"""The engine in this process: one thread that owns torch and faiss, and the only queue before it.

It dispatches when idle: whatever queued while the last batch ran is the next one, up to `max_batch`. There is no window
to wait out, so a lone request is never held for company.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ranking.batch import Answer, Query
from ranking.engine import BatchPath, StageClock
from ranking.errors import EngineError, EngineOverloaded, EngineStopped
from ranking.index import one_thread
from ranking.live import Change

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Job:
    version: str
    query: Query
    future: asyncio.Future[Answer]
    queued_at: float


class LocalEngine:
    """Batches queries for one thread.

    `paths` maps a version to its batch path. `max_queue` bounds what waits; beyond it `submit` refuses at once.
    """

    def __init__(
        self,
        paths: Mapping[str, BatchPath],
        *,
        max_batch: int,
        max_queue: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.paths, self.max_batch, self.max_queue, self.clock = paths, max_batch, max_queue, clock
        self.waiting: deque[Job] = deque()
        self.changes: deque[Sequence[Change]] = deque()
        self.wake = threading.Condition()
        self.stopping = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = threading.Thread(target=self._run, name="endcap-engine", daemon=True)

    def start(self) -> None:
        """Starts the thread. Call on the event loop that will submit."""
        self.loop = asyncio.get_running_loop()
        self.thread.start()

    async def stop(self) -> None:
        """Answers what has queued, refuses the rest, and ends the thread."""
        with self.wake:
            self.stopping = True
            self.wake.notify()
        if self.thread.is_alive():
            await asyncio.to_thread(self.thread.join)

    async def submit(self, version: str, query: Query) -> Answer:
        if self.loop is None or self.stopping:
            raise EngineStopped("the engine is not running")
        if len(self.waiting) >= self.max_queue:
            raise EngineOverloaded(f"{self.max_queue} queries are waiting")
        job = Job(version, query, self.loop.create_future(), self.clock())
        with self.wake:
            self.waiting.append(job)
            self.wake.notify()
        return await job.future

    def change(self, changes: Sequence[Change]) -> None:
        """Applies item changes to every version, before the next batch."""
        with self.wake:
            self.changes.append(changes)
            self.wake.notify()

    def knows(self, item_id: str) -> bool:
        """Whether any version has, or had, such an item."""
        return any(path.live.knows(item_id) for path in self.paths.values())

    def _run(self) -> None:
        torch.set_num_threads(1)
        one_thread()
        while batch := self._next_batch():
            groups = defaultdict(list)
            for job in batch:
                groups[job.version].append(job)
            for version, jobs in groups.items():
                self._answer(self.paths[version], jobs)

    def _next_batch(self) -> list[Job]:
        """The next jobs whose callers still wait; empty only when the engine stops. Item changes come first."""
        while True:
            with self.wake:
                while not self.waiting and not self.changes and not self.stopping:
                    self.wake.wait()
            self._change()
            with self.wake:
                if not self.waiting and not self.stopping:
                    continue
                if not self.waiting:
                    return []
                taken = [self.waiting.popleft() for _ in range(min(self.max_batch, len(self.waiting)))]
            # Whoever has gone away leaves before the forward pass.
            if batch := [job for job in taken if not job.future.cancelled()]:
                return batch

    def _change(self) -> None:
        while self.changes:
            changes = self.changes.popleft()
            for key, path in self.paths.items():
                try:
                    path.change(changes)
                except Exception:
                    log.exception("%s: item changes could not be applied", key)

    def _answer(self, path: BatchPath, jobs: list[Job]) -> None:
        began, stages = self.clock(), dict[str, float]()
        outcomes: list[Answer | EngineError]
        try:
            ranked = path.recommend([job.query for job in jobs], self._timed(stages))
            outcomes = [
                Answer(one, began - job.queued_at, stages, len(jobs)) for one, job in zip(ranked, jobs, strict=True)
            ]
        except Exception as error:  # noqa: BLE001 - whatever a user's model raises must reach its caller, not end the thread
            if len(jobs) > 1:  # one bad query fails alone
                for job in jobs:
                    self._answer(path, [job])
                return
            failure = EngineError(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            outcomes = [failure]
        assert self.loop is not None
        self.loop.call_soon_threadsafe(settle, jobs, outcomes)

    def _timed(self, stages: dict[str, float]) -> StageClock:
        def clock(stage: str) -> StageTimer:
            return StageTimer(stages, stage, self.clock)

        return clock


class StageTimer:
    """Adds a stage's seconds to `stages` when it ends, however it ends."""

    __slots__ = ("began", "clock", "stage", "stages")

    def __init__(self, stages: dict[str, float], stage: str, clock: Callable[[], float]) -> None:
        self.stages, self.stage, self.clock = stages, stage, clock

    def __enter__(self) -> StageTimer:
        self.began = self.clock()
        return self

    def __exit__(self, *_: object) -> None:
        self.stages[self.stage] = self.stages.get(self.stage, 0.0) + self.clock() - self.began


def settle(jobs: list[Job], outcomes: list[Answer] | list[EngineError] | list[Answer | EngineError]) -> None:
    """Runs on the event loop: hands each job its outcome unless its caller has gone."""
    for job, outcome in zip(jobs, outcomes, strict=True):
        if job.future.done():
            continue
        if isinstance(outcome, EngineError):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
