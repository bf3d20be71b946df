"""Who waits for the engine: interactive queries before bulk ones, and nobody for whom an answer would come too late.

The queue is bounded in time, not in length. As long as it runs empty now and then a burst may wait as long as it has
time; once it has not been empty for a while, whoever has waited for half of the time that there was leaves, so that
those behind are answered. Controlled delay by emptiness: Ben Maurer, "Fail at Scale", ACM Queue 13(8), 2015; after
Kathleen Nichols and Van Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain

from ranking.batch import Answer, Query
from ranking.errors import EngineError, EngineExpired, EngineOverloaded

INTERVAL_S = 0.1
"""A queue that has not been empty for so long stands."""
SHARE = 0.5
"""The share of its time that a query may wait in a queue that stands."""


@dataclass(slots=True)
class Job:
    """A query and who waits for its answer; times in seconds of the desk's clock."""

    version: str
    query: Query
    future: asyncio.Future[Answer]
    queued_at: float
    expires_at: float
    bulk: bool = False


class Lanes(Collection[Query]):
    """The queries that wait, in the order in which they will be taken. `now` of every call is the desk's clock."""

    def __init__(self) -> None:
        self.interactive: deque[Job] = deque()
        self.bulk: deque[Job] = deque()
        self.empty_at = 0.0

    def __len__(self) -> int:
        return len(self.interactive) + len(self.bulk)

    def __iter__(self) -> Iterator[Query]:
        return (job.query for job in chain(self.interactive, self.bulk))

    def __contains__(self, one: object) -> bool:
        return any(query is one for query in self)

    def put(self, job: Job) -> None:
        if not self:
            self.empty_at = job.queued_at
        (self.bulk if job.bulk else self.interactive).append(job)

    def clear(self, now: float) -> list[tuple[Job, EngineError]]:
        """Takes out whoever has gone, and those who leave unanswered with why."""
        stands = now - self.empty_at > INTERVAL_S
        left: list[tuple[Job, EngineError]] = []
        for lane in (self.interactive, self.bulk):
            if not any(too_late(job, now, stands) for job in lane):
                continue
            staying = deque[Job]()
            for job in lane:
                if (why := too_late(job, now, stands)) is None:
                    staying.append(job)
                elif not job.future.done():
                    left.append((job, why))
            lane.clear()
            lane.extend(staying)
        if not self:
            self.empty_at = now
        return left

    def take(self, count: int, now: float) -> list[Job]:
        """The first of those who wait."""
        taken = []
        for _ in range(count):
            lane = self.interactive or self.bulk
            taken.append(lane.popleft())
        if not self:
            self.empty_at = now
        return taken


def too_late(job: Job, now: float, stands: bool) -> EngineError | None:
    """Why a job leaves the queue unanswered; None for one that stays."""
    if job.future.done() or now >= job.expires_at:
        return EngineExpired(f"its time was up after {now - job.queued_at:.3f} s in the queue")
    if stands and now - job.queued_at > SHARE * (job.expires_at - job.queued_at):
        return EngineOverloaded(f"left a queue that stands after {now - job.queued_at:.3f} s")
    return None
