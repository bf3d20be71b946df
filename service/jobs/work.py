"""One job, from where it is to its end: a line of input becomes a line of result.

The result's whole lines are the only record of what is done. Whoever goes on after a `kill -9` counts them, cuts off
what is left of one, and takes the next line of the input: so each row is answered exactly once in the result.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable
from typing import Any, BinaryIO, Protocol

import msgspec
from msgspec.structs import replace

from features.errors import FeatureStoreError
from ranking.errors import EngineExpired, EngineOverloaded, EngineStopped
from service.call import Call
from service.errors import DeadlineExceeded, Overloaded, look
from service.jobs.disk import on_disk
from service.jobs.files import JobFiles, Progress, Record
from service.jobs.pace import Pace
from service.jobs.result import recover
from service.jobs.rows import REQUESTS
from service.jobs.wire import Line
from service.ladder import CANDIDATES, NPROBE, POPULAR, RANKER
from service.trace import Trace
from service.wire import RankRequest, Recommendation, RecommendRequest

AT_ONCE = 4
"""Rows in flight while there are no shoppers; while there are, one."""
SAVE_S = 2.0
"""How often what was written is brought to the disk, and how far the job is told. Whoever else writes there,
the store's log for one, waits meanwhile."""
ROW_S = 30.0
"""How long a row may take: nobody waits for it."""
PATIENT = Call(timeout_s=ROW_S, bulk=True, patient=True)
AGAIN: tuple[type[Exception], ...] = (Overloaded, DeadlineExceeded, FeatureStoreError, EngineExpired, EngineOverloaded)
"""What passes: such a row is asked again until it is answered."""
BACKOFF_S = (0.1, 0.5, 2.0, 5.0)
POOR = frozenset(("last_known", "features", NPROBE, CANDIDATES, RANKER, POPULAR))
"""What an answer had to do without that another time it may have. After BACKOFF_S it is taken as it is."""
SMOOTHING = 0.3

log = logging.getLogger(__name__)


class Cancelled(Exception):
    """Somebody wants the job to end."""


class Recommender(Protocol):
    async def recommend(self, request: RecommendRequest, trace: Trace, call: Call) -> Recommendation: ...

    async def rank(self, request: RankRequest, trace: Trace, call: Call) -> Recommendation: ...


class Work:
    """Does jobs. `counts`: rows by outcome."""

    def __init__(self, files: JobFiles, recommender: Recommender, pace: Pace, counts: Counter[tuple[str, ...]]) -> None:
        self.files, self.recommender, self.pace, self.counts = files, recommender, pace, counts

    async def run(self, record: Record) -> None:
        """Raises Cancelled, OSError, or EngineStopped where the service is shutting down."""
        folder = self.files.of(record.id)
        assert record.total is not None
        progress = await asyncio.to_thread(recover, folder / "result.ndjson")
        with (folder / "input.ndjson").open("rb") as source, (folder / "result.ndjson").open("ab", 0) as sink:
            await asyncio.to_thread(skip, source, progress.done)
            saved = await self.save(record, sink, progress, None)
            saved_at = time.monotonic()
            try:
                while progress.done < record.total:
                    if self.files.cancelled(record.id):
                        raise Cancelled(record.id)
                    await self.pace.turn()
                    began = time.perf_counter()
                    progress = await self.some(record, source, sink, progress)
                    spent = time.perf_counter() - began
                    if (since := time.monotonic() - saved_at) >= SAVE_S:
                        saved = await self.save(record, sink, progress, (progress.done - saved.done) / since)
                        progress, saved_at = saved, time.monotonic()
                    await self.pace.rest(spent)
            except Cancelled:
                await self.save(record, sink, progress, None)
                raise
            await self.save(record, sink, progress, None)

    async def some(self, record: Record, source: BinaryIO, sink: Any, progress: Progress) -> Progress:
        """Answers the next rows."""
        rows = [line for _ in range(AT_ONCE if self.pace.quiet() else 1) if (line := source.readline())]
        if not rows:
            raise OSError(f"{source.name} has fewer lines than it had")
        lines = await asyncio.gather(*(self.row(record, progress.done + place, row) for place, row in enumerate(rows)))
        written = b"".join(line for line, _ in lines)
        await on_disk(sink.write, written)
        failed = sum(not answered for _, answered in lines)
        self.counts["answered",] += len(lines) - failed
        self.counts["failed",] += failed
        return replace(
            progress, done=progress.done + len(lines), failed=progress.failed + failed,
            size=progress.size + len(written),
        )  # fmt: skip

    async def save(self, record: Record, sink: Any, progress: Progress, rate: float | None) -> Progress:
        """Brings what was written to the disk, and then says so."""
        if rate is not None and progress.rate is not None:
            rate = progress.rate + SMOOTHING * (rate - progress.rate)
        progress = replace(progress, rate=progress.rate if rate is None else rate)

        def bring() -> None:
            os.fdatasync(sink.fileno())
            self.files.advance(record.id, progress)

        await on_disk(bring)
        return progress

    async def row(self, record: Record, index: int, line: bytes) -> tuple[bytes, bool]:
        """A line of the result, and whether it has an answer."""
        request = msgspec.json.decode(line, type=REQUESTS[record.kind])
        try:
            told = Line(index, request.user_id, await self.answer(record, request))
        except (EngineStopped, Cancelled):
            raise
        except Exception as error:
            if look(error) is None:
                log.exception("row %d of a job failed", index)
                told = Line(index, request.user_id, error="the service failed on this row")
            else:
                told = Line(index, request.user_id, error=str(error))
        return msgspec.json.encode(told) + b"\n", told.error is None

    async def answer(self, record: Record, request: RecommendRequest | RankRequest) -> Recommendation:
        """As good an answer as there is without any hurry. Raises Cancelled where the job is while a row waits."""
        tries = poor = 0
        while True:
            try:
                answer = await self.ask(request)
                if poor >= len(BACKOFF_S) or POOR.isdisjoint(answer.degraded):
                    return answer
                poor += 1
            except AGAIN:
                tries += 1
            if self.files.cancelled(record.id):
                raise Cancelled(record.id)
            await asyncio.sleep(BACKOFF_S[min(tries + poor, len(BACKOFF_S)) - 1])

    def ask(self, request: RecommendRequest | RankRequest) -> Awaitable[Recommendation]:
        if isinstance(request, RankRequest):
            return self.recommender.rank(request, Trace(), PATIENT)
        return self.recommender.recommend(request, Trace(), PATIENT)


def skip(source: BinaryIO, lines: int) -> None:
    for _ in range(lines):
        source.readline()
