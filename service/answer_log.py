"""The serving log: every answer, with what it was made of, as Parquet by the hour. docs/serving-log.md is for readers.

The request path only appends to a queue; one thread converts, writes, compacts hours that are over and removes old
ones. What is lost is counted: `dropped` did not fit the queue, `failed` could not be written.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from service.answer_table import AT_ONCE, NO_EXCHANGE, batches_of, compact, settle, write
from service.answered import Answered

LOG = Path("log", "answers")
"""Where a deployment's log is, below its directory."""

FOLDER = "date=%Y-%m-%d/hour=%H"
HOUR_S, DAY_S = 3600, 86400
SETTLED_S = 120.0
"""So long after its end an hour is compacted: answers of its last moment have been written then."""
TIDY_S = 60.0
SLICE_S = 0.05
"""How often it is looked whether AT_ONCE answers have queued, to be turned into Arrow together."""
END = object()


class AnswerLog:
    """Writes answers below `directory`. Several processes may write to the same one.

    An answer is on disk `flush_s` seconds after `put`, or earlier when `flush_rows` wait. Hours older than `keep_days`
    are removed. `clock` (seconds since the epoch) says what is old.
    """

    def __init__(
        self,
        directory: Path,
        *,
        flush_s: float = 5.0,
        flush_rows: int = 5_000,
        max_queue: int = 50_000,
        keep_days: float = 14.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory, self.clock = directory, clock
        self.flush_s, self.flush_rows, self.max_queue, self.keep_days = flush_s, flush_rows, max_queue, keep_days
        self.written = self.dropped = self.failed = 0
        self.last_error = ""
        self.queue: deque[Answered] = deque()
        self.converted: dict[int, list[pa.RecordBatch]] = {}
        self.pending = 0  # answers in `converted`
        self.writing = threading.Lock()
        self.wake = threading.Event()
        self.stopping = False
        self.compacts = True
        self.left_alone: set[Path] = set()
        self.thread = threading.Thread(target=self._run, name="answer-log", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def put(self, answered: Answered) -> None:
        """Never waits, never raises; what does not fit the queue is dropped and counted."""
        waiting = len(self.queue) + self.pending
        if self.stopping or waiting >= self.max_queue:
            self.dropped += 1
            return
        self.queue.append(answered)
        if waiting + 1 >= self.flush_rows:
            self.wake.set()

    def stop(self) -> None:
        """Ends the thread and writes what is left. Blocks."""
        self.stopping = True
        self.wake.set()
        if self.thread.is_alive():
            self.thread.join()
        self.flush()

    def flush(self) -> None:
        """Returns when every answer put before is on disk, or counted as failed. Blocks; any thread may call it."""
        with self.writing:
            left = len(self.queue)
            while left or self.pending:
                left -= self._convert(min(left, self.flush_rows - self.pending))
                converted, self.converted = self.converted, {}
                for hour, batches in converted.items():
                    self._write(hour, batches)

    def _convert(self, most: int) -> int:
        """Turns what has queued, at most so many, into Arrow; returns how many it took off the queue."""
        rows = [self.queue.popleft() for _ in range(min(most, len(self.queue)))]
        by_hour: dict[int, list[Answered]] = {}
        for one in rows:
            by_hour.setdefault(int(one.at // HOUR_S), []).append(one)
        for hour, answers in by_hour.items():
            try:
                batches, complaints = batches_of(answers)
            except Exception as error:  # noqa: BLE001 - whatever it is, the answers after these must still be written
                self._failed(len(answers), f"{type(error).__name__}: {error}")
                continue
            self.pending += sum(one.num_rows for one in batches)
            self.converted.setdefault(hour, []).extend(batches)
            if complaints:
                self._failed(len(complaints), complaints[-1])
        return len(rows)

    def _failed(self, count: int, why: str) -> None:
        self.failed += count
        self.last_error = why

    def tidy(self) -> None:
        """Compacts and removes now, all of it. Blocks."""
        for _ in self._tidy():
            pass

    def _write(self, hour: int, batches: list[pa.RecordBatch]) -> None:
        count = sum(one.num_rows for one in batches)
        try:
            # A name that sorts by time, for those who list a folder.
            name = f"{time.time_ns()}-{os.getpid()}-{secrets.token_hex(4)}.parquet"
            if count:
                write(pa.Table.from_batches(batches), self.folder(hour), name)
                self.written += count
        except Exception as error:  # noqa: BLE001 - whatever it is, the answers after these must still be written
            self._failed(count, f"{type(error).__name__}: {error}")
        finally:
            self.pending -= count

    def folder(self, hour: int) -> Path:
        """Where the answers of an hour are, counted since the epoch."""
        return self.directory / datetime.fromtimestamp(hour * HOUR_S, UTC).strftime(FOLDER)

    def _run(self) -> None:
        now = time.monotonic
        flush_at, tidy_at = now() + self.flush_s, now()
        tidying: Generator[None] | None = None
        while not self.stopping:
            if tidying is None:
                self.wake.wait(min(max(0.0, flush_at - now()), SLICE_S))
            self.wake.clear()
            # A little at a time: what turns answers into Arrow holds the interpreter's lock, and shoppers wait for it.
            # But not a few: a batch costs 230 us, and 8 more an answer.
            while len(self.queue) >= AT_ONCE:
                with self.writing:
                    self._convert(AT_ONCE)
            if now() >= flush_at or len(self.queue) + self.pending >= self.flush_rows:
                self.flush()
                flush_at = now() + self.flush_s
            if tidying is None and now() >= tidy_at:
                tidying, tidy_at = self._tidy(), now() + TIDY_S
            # A step at a time, because what waits must be written on time also while an hour is compacted.
            if tidying is not None and next(tidying, END) is END:
                tidying = None
        if tidying is not None:
            tidying.close()

    def _tidy(self) -> Generator[None]:
        """One pass over all hours, in short steps, by one process at a time."""
        if not self.directory.is_dir():
            return
        with self._noting(self.directory), held(self.directory / ".tidying") as mine:
            for staged in self.directory.glob("date=*/.hour=*") if mine else ():
                settle(staged)
            for folder in sorted(self.directory.glob("date=*/hour=*")) if mine else ():
                with self._noting(folder):
                    yield from self._tidy_hour(folder)
                yield

    def _tidy_hour(self, folder: Path) -> Iterator[None]:
        named = datetime.strptime(f"{folder.parent.name}/{folder.name}", FOLDER).replace(tzinfo=UTC)
        age_s = self.clock() - (named.timestamp() + HOUR_S)
        if age_s > self.keep_days * DAY_S:
            shutil.rmtree(folder)
            with suppress(OSError):  # a day goes with its last hour
                folder.parent.rmdir()
        elif age_s > SETTLED_S:
            for partial in folder.glob(".*.partial"):  # of a writer that was killed; a living one writes it again
                partial.unlink(missing_ok=True)
            if self.compacts and folder not in self.left_alone:
                yield from compact(folder)

    @contextmanager
    def _noting(self, folder: Path) -> Iterator[None]:
        """An error in the upkeep of one folder is told in `last_error`, and that folder is not compacted any more."""
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            self.last_error = f"{folder}: {error}"
            self.left_alone.add(folder)
            self.compacts = self.compacts and getattr(error, "errno", None) not in NO_EXCHANGE


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether no other process (or thread) holds this lock; it is ours until the end. A killed holder lets go."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
