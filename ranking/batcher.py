"""The engine in this process, in a thread or on the event loop, and the only queue before it.

It dispatches when idle: of what queued while the last batch ran, the next one is as much as `ranking.batching` has
learned to be worth having. There is no window to wait out, so a lone request is never held for company.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from math import inf

import torch

from ranking.batch import Answer, Query
from ranking.batching import Policy
from ranking.engine import BatchPath, StageClock
from ranking.errors import EngineError, EngineStopped
from ranking.index import one_thread
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
        self.changes: deque[Sequence[Change]] = deque()
        self.stopping = False
        self.loop: asyncio.AbstractEventLoop | None = None

    def enqueue(self, version: str, query: Query, expires_at: float, bulk: bool) -> asyncio.Future[Answer]:
        if self.loop is None or self.stopping:
            raise EngineStopped("the engine is not running")
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

    def apply_changes(self) -> None:
        while self.changes:
            changes = self.changes.popleft()
            for key, path in self.paths.items():
                try:
                    path.change(changes)
                except Exception:
                    log.exception("%s: item changes could not be applied", key)

    def answer(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Each job with what became of it, one forward pass a version."""
        groups = defaultdict(list)
        for job in jobs:
            groups[job.version].append(job)
        return [outcome for version, group in groups.items() for outcome in self._answer(self.paths[version], group)]

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


class LocalEngine:
    """Batches queries for one thread, so that the event loop goes on meanwhile where there is a core for it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.wake = threading.Condition()
        self.thread = threading.Thread(target=self._run, name="endcap-engine", daemon=True)

    def start(self) -> None:
        """Starts the thread. Call on the event loop that will submit."""
        self.desk.loop = asyncio.get_running_loop()
        self.thread.start()

    async def stop(self) -> None:
        """Answers what has queued, refuses the rest, and ends the thread."""
        with self.wake:
            self.desk.stopping = True
            self.wake.notify()
        if self.thread.is_alive():
            await asyncio.to_thread(self.thread.join)

    async def submit(self, version: str, query: Query, *, expires_at: float = inf, bulk: bool = False) -> Answer:
        with self.wake:
            future = self.desk.enqueue(version, query, expires_at, bulk)
            self.wake.notify()
        return await future

    def wait_s(self) -> float:
        return self.desk.wait_s()

    def change(self, changes: Sequence[Change]) -> None:
        """Applies item changes to every version, before the next batch."""
        with self.wake:
            self.desk.changes.append(changes)
            self.wake.notify()

    def _run(self) -> None:
        hold_to_one_core()
        desk, loop = self.desk, self.desk.loop
        assert loop is not None
        while jobs := self._next_batch(loop):
            loop.call_soon_threadsafe(settle, desk.answer(jobs))

    def _next_batch(self, loop: asyncio.AbstractEventLoop) -> list[Job]:
        """The next jobs; empty only when the engine stops. Item changes come first."""
        desk = self.desk
        while True:
            with self.wake:
                while not desk.waiting and not desk.changes and not desk.stopping:
                    self.wake.wait()
            desk.apply_changes()
            with self.wake:
                if not desk.waiting and not desk.stopping:
                    continue
                if not desk.waiting:
                    return []
                taken, left = desk.take()
            if left:
                loop.call_soon_threadsafe(settle, left)
            if taken:
                return taken


class InlineEngine:
    """Batches queries on the event loop itself: what has queued in one turn of it is the next batch.

    Where every core has a worker of its own a thread would only take turns with the loop, and each turn costs.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk, self.due = desk, False

    def start(self) -> None:
        """Call on the event loop that will submit."""
        self.desk.loop = asyncio.get_running_loop()
        hold_to_one_core()

    async def stop(self) -> None:
        """Answers what has queued, and refuses the rest."""
        self.desk.stopping = True
        while self.due:  # noqa: ASYNC110 - what is waited for is the loop's own next turn
            await asyncio.sleep(0)

    async def submit(self, version: str, query: Query, *, expires_at: float = inf, bulk: bool = False) -> Answer:
        future = self.desk.enqueue(version, query, expires_at, bulk)
        self._see_to_it()
        return await future

    def wait_s(self) -> float:
        return self.desk.wait_s()

    def change(self, changes: Sequence[Change]) -> None:
        """Applies item changes to every version, before the next batch."""
        self.desk.changes.append(changes)
        self._see_to_it()

    def _see_to_it(self) -> None:
        if not self.due and self.desk.loop is not None:
            self.due = True
            self.desk.loop.call_soon(self._let_others)

    def _let_others(self) -> None:
        """Whatever has come meanwhile goes first: it may be refused, or ride along."""
        assert self.desk.loop is not None
        self.desk.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """One batch. Whatever else the loop has to do comes before the next one."""
        self.due = False
        self.desk.apply_changes()
        taken, left = self.desk.take()
        settle(left)
        settle(self.desk.answer(taken))
        if self.desk.waiting:
            self._see_to_it()


def hold_to_one_core() -> None:
    """For the thread that answers."""
    torch.set_num_threads(1)
    one_thread()


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


def settle(outcomes: Sequence[Outcome]) -> None:
    """Runs on the event loop: hands each job its outcome unless its caller has gone."""
    for job, outcome in outcomes:
        if job.future.done():
            continue
        if isinstance(outcome, EngineError):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
