"""The only queue before the engine, what is due between two batches, and how a batch is answered.

It dispatches when idle: of what queued while the last batch ran, the next one is as much as `ranking.batching` has
learned to be worth having. There is no window to wait out, so a lone request is never held for company.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence

from ranking.batch import Answer, Query
from ranking.batching import Policy
from ranking.engine import BatchPath, StageClock
from ranking.errors import EngineError, EngineExpired, EngineStopped
from ranking.lanes import Job, Lanes
from ranking.live import Change

log = logging.getLogger(__name__)

Outcome = tuple[Job, Answer | EngineError]
"""A job and what became of it."""


class Desk:
    """The queue before a batch path, and how a batch of it is answered. Both engines are made on it.

    `paths` maps a version to its batch path, `policy` says how many are the next batch.
    """

    def __init__(
        self,
        paths: Mapping[str, BatchPath],
        policy: Policy,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.paths, self.policy, self.clock = paths, policy, clock
        self.waiting = Lanes()
        self.between: deque[Callable[[], None]] = deque()
        self.spare: deque[Callable[[], None]] = deque()
        self.stopping = False
        self.loop: asyncio.AbstractEventLoop | None = None

    def enqueue(self, version: str, query: Query, expires_at: float, bulk: bool) -> asyncio.Future[Answer]:
        if self.loop is None or self.stopping:
            raise EngineStopped("the engine is not running")
        if version not in self.paths:
            raise EngineExpired(f"{version} is not loaded any more")
        job = Job(version, query, self.loop.create_future(), self.clock(), expires_at, bulk)
        self.waiting.put(job)
        return job.future

    def take(self) -> tuple[list[Job], list[Outcome]]:
        """The next jobs, and what became of those who leave before the forward pass: for them it would be too late."""
        now = self.clock()
        left: list[Outcome] = [*self.waiting.clear(now)]
        if not self.waiting:
            return [], left
        return self.waiting.take(self.policy.take(self.waiting), now), left

    def wait_s(self) -> float:
        """Seconds that those who wait will take."""
        return self.policy.drain_s(len(self.waiting))

    def knows(self, item_id: str) -> bool:
        """Whether any version has, or had, such an item."""
        return any(path.live.knows(item_id) for path in self.paths.values())

    def apply(self, changes: Sequence[Change]) -> None:
        """Item changes, to every version. Like what follows: between two batches, on the thread that answers."""
        for key, path in self.paths.items():
            try:
                path.change(changes)
            except Exception:
                log.exception("%s: item changes could not be applied", key)

    def join(self, key: str, path: BatchPath, missed: Sequence[Sequence[Change]]) -> None:
        """Has `path` answer for a version from the next batch on, with the item changes that it has missed."""
        for changes in missed:
            path.change(changes)
        self.paths = {**self.paths, key: path}  # a new one, because other threads look at it

    def leave(self, keys: Collection[str]) -> None:
        """Lets go of versions. Nobody may still ask for them."""
        self.paths = {key: path for key, path in self.paths.items() if key not in keys}

    def do_between(self) -> None:
        """What is due between two batches, in the order in which it came."""
        while self.between:
            self.between.popleft()()

    def do_spare(self) -> None:
        """One piece of what goes after the shoppers, where none of them waits."""
        if self.spare and not self.waiting.interactive:
            self.spare.popleft()()

    def later(self, do: Callable[[], None], bulk: bool = False) -> asyncio.Future[None]:
        """Makes it due; `bulk`: not before shoppers, and not at all once its caller has gone. The future has its end,
        or what it raised."""
        loop = self.loop
        if loop is None or self.stopping:
            raise EngineStopped("the engine is not running")
        future: asyncio.Future[None] = loop.create_future()

        def due() -> None:
            if bulk and future.done():
                return
            error: Exception | None = None
            try:
                do()
            except Exception as raised:  # noqa: BLE001 - it belongs to who asked, and must not end the engine
                error = raised
            loop.call_soon_threadsafe(tell, future, error)

        (self.spare if bulk else self.between).append(due)
        return future

    def answer(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Each job with what became of it, one forward pass a version."""
        groups = defaultdict(list)
        for job in jobs:
            groups[job.version].append(job)
        return [
            outcome
            for version, group in groups.items()
            for outcome in (self._answer(self.paths[version], group) if version in self.paths else gone(group))
        ]

    def _answer(self, path: BatchPath, jobs: list[Job]) -> list[Outcome]:
        began, stages = self.clock(), dict[str, float]()
        try:
            queries = [job.query for job in jobs]
            ranked = path.recommend(queries, self._timed(stages))
            self.policy.saw(queries, self.clock() - began)
            return [
                (job, Answer(one, began - job.queued_at, stages, len(jobs)))
                for one, job in zip(ranked, jobs, strict=True)
            ]
        except Exception as error:  # noqa: BLE001 - whatever a user's model raises must reach its caller, not end the engine
            if len(jobs) > 1:  # one bad query fails alone
                return [outcome for job in jobs for outcome in self._answer(path, [job])]
            failure = EngineError(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            return [(jobs[0], failure)]

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


def gone(jobs: Sequence[Job]) -> list[Outcome]:
    """Of a version that is not loaded any more."""
    return [(job, EngineExpired(f"{job.version} is not loaded any more")) for job in jobs]


def tell(future: asyncio.Future[None], error: Exception | None) -> None:
    """Runs on the event loop: what was asked for is done, or has failed."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def settle(outcomes: Sequence[Outcome]) -> None:
    """Runs on the event loop: hands each job its outcome unless its caller has gone."""
    for job, outcome in outcomes:
        if job.future.done():
            continue
        if isinstance(outcome, EngineError):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
