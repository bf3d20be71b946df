"""Recorded traffic: requests as they came, in the format that `load` plays. docs/capture.md is for readers.

Where a connection is read (`service/http/tape.py`) a request is only appended to a queue; one thread cleans and writes.
What is lost is counted: `dropped` did not fit the queue or a file, `failed` could not be written.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path

import msgspec

from service.capture_body import NDJSON, Bodies, Cleaner, Sample
from service.capture_files import Line, TrafficFiles, secret
from service.config import CaptureConfig, Config
from service.errors import CaptureError
from service.http.tape import Seen

AT_ONCE = 128
MOST_BYTES = 64 << 20
"""Of bodies that wait to be cleaned, and again of lines that wait to be written."""
SLICE_S = 0.05
"""How often it is looked what has queued: a little at a time, because a shopper may wait for the interpreter's lock."""
TIDY_S = 60.0
FOREVER_US = 2**63

log = logging.getLogger(__name__)


class Capture:
    """Writes requests below `directory`. Several processes may write to the same one; `workers` share its bounds.

    A request is on disk `hold_s + flush_s` seconds after its first byte. That long it is held, because rows are in the
    order of their first bytes and one whose body comes slowly is known late; of one that takes longer the time is
    moved, not the place. `clock` (seconds since the epoch) is asked once for when requests come, and for what is old.
    """

    def __init__(
        self,
        directory: Path,
        config: CaptureConfig,
        most_body: int,
        *,
        workers: int = 1,
        hold_s: float = 5.0,
        flush_s: float = 1.0,
        max_queue: int = 50_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory, self.config, self.most_body = directory, config, most_body
        self.hold_us, self.flush_s, self.max_queue = int(hold_s * 1e6), flush_s, max_queue
        self.paths: Mapping[bytes, str] = {path.encode("ascii"): path for path in config.endpoints}
        most = int(config.max_mb * 1e6)
        file_bytes = min(int(config.max_file_mb * 1e6), most // (2 * workers))
        self.files = TrafficFiles(
            directory,
            file_bytes=file_bytes,
            whole_bytes=most - workers * file_bytes,
            keep_s=config.max_days * 86400,
            clock=clock,
        )
        # Once: a clock that is set meanwhile puts no row out of order.
        self.origin_us = int(clock() * 1e6) - time.perf_counter_ns() // 1000
        self.written = self.failed = self.refused = self.unfit = 0
        self.put_rows = self.put_bytes = self.done_rows = self.done_bytes = 0
        self.queue: deque[Seen] = deque()
        self.held: list[Line] = []  # a line without its time
        self.held_bytes = self.last_us = 0
        self.bodies: Bodies | None = None
        self.told = False
        self.working = threading.Lock()
        self.wake = threading.Event()
        self.stopping = False
        self.thread = threading.Thread(target=self._run, name="capture", daemon=True)

    @property
    def dropped(self) -> int:
        return self.refused + self.unfit

    def start(self) -> None:
        self.thread.start()

    def put(self, seen: Seen) -> None:
        """Never waits, never raises; what does not fit the queue is dropped and counted."""
        full = self.put_rows - self.done_rows >= self.max_queue or self.put_bytes - self.done_bytes >= MOST_BYTES
        if self.stopping or full:
            self.refused += 1
            return
        self.put_rows += 1
        self.put_bytes += 0 if seen.body is None else len(seen.body)
        self.queue.append(seen)

    def stop(self) -> None:
        """Ends the thread, writes what is left and ends the file. Blocks."""
        self.stopping = True
        self.wake.set()
        if self.thread.is_alive():
            self.thread.join()
        self.flush()
        try:
            self.files.rotate()
        except OSError as error:
            self._failed(0, error)

    async def close(self) -> None:
        await asyncio.to_thread(self.stop)

    def flush(self) -> None:
        """Returns when every request put before is on disk, or counted as failed. Blocks; any thread may call it."""
        with self.working:
            while self.queue:
                self._convert()
            self._write(FOREVER_US)

    def _run(self) -> None:
        now = time.monotonic
        flush_at, tidy_at = now() + self.flush_s, now()
        while not self.stopping:
            self.wake.wait(SLICE_S)
            with self.working:
                while self.queue:
                    self._convert()
            if now() >= flush_at:
                with self.working:
                    self._pass(self._at_us(time.perf_counter_ns()) - self.hold_us, tidy=now() >= tidy_at)
                flush_at = now() + self.flush_s
                tidy_at = now() + TIDY_S if now() >= tidy_at else tidy_at

    def _pass(self, before_us: int, *, tidy: bool) -> None:
        """Writes what came before a time, ends the file when its hour is over, and sees to the others."""
        self._write(before_us)
        try:
            if self.files.over(before_us):
                self.files.rotate()
            if tidy or self.files.untidy:
                self.files.tidy()
        except OSError as error:
            self._failed(0, error)

    def _at_us(self, at_ns: int) -> int:
        return self.origin_us + at_ns // 1000

    def _convert(self) -> None:
        """Turns some of what has queued into lines."""
        for _ in range(min(AT_ONCE, len(self.queue))):
            seen = self.queue.popleft()
            self.done_bytes += 0 if seen.body is None else len(seen.body)
            try:
                line = self._line(seen)
            except Exception as error:  # noqa: BLE001 - whatever it is, the requests after this must still be written
                self._failed(1, error)
                line = None
            if line is not None and self.held_bytes + len(line) > MOST_BYTES:  # what was compressed grows here
                self.unfit += 1
                line = None
            if line is None:
                self.done_rows += 1
            else:
                self.held.append((self._at_us(seen.at_ns), line))
                self.held_bytes += len(line)

    def _line(self, seen: Seen) -> bytes | None:
        """A row without its time; None where it is not to be recorded."""
        if self.bodies is None:
            self.bodies = self._open_bodies()
        lines = seen.headers.get("Content-Type", "").partition(";")[0].strip().lower() == NDJSON
        body = None if seen.body is None else self.bodies.read(seen.body, seen.coding)
        cut = seen.cut or (body is not None and len(body) > self.most_body)
        if cut and lines:  # the service reads NDJSON of any length, memory does not hold it
            self.unfit += 1
            return None
        if cut:
            body = b"x" * (self.most_body + 1)
        if not self.bodies.wanted(body or b"", lines=lines):
            return None
        text = None if body is None else self.bodies.text(body, lines=lines)
        row = {"method": seen.method, "path": seen.path, "headers": seen.headers, "body": text}
        return msgspec.json.encode(row)[1:] + b"\n"

    def _open_bodies(self) -> Bodies:
        config = self.config
        key = secret(self.directory) if config.share < 1 or config.hash else b""
        sample = Sample(config.share, key) if config.share < 1 else None
        cleaner = Cleaner(config.drop, config.hash, key) if config.drop or config.hash else None
        return Bodies(sample, cleaner, self.most_body)

    def _write(self, before_us: int) -> None:
        """Writes, in order, what came before a time."""
        self.held.sort(key=itemgetter(0))
        count = next((place for place, one in enumerate(self.held) if one[0] >= before_us), len(self.held))
        ready, self.held = self.held[:count], self.held[count:]
        rows: list[Line] = []
        for at_us, rest in ready:
            self.last_us = max(self.last_us, at_us)
            line = b'{"at_us":%d,%b' % (self.last_us, rest)
            if len(line) > self.files.file_bytes:
                self.unfit += 1
            else:
                rows.append((self.last_us, line))
            self.held_bytes -= len(rest)
        self.done_rows += len(ready)
        written, wrong = self.files.append(rows)
        self.written += written
        if wrong is not None:
            self._failed(len(rows) - written, wrong)
        elif rows:
            self.told = False

    def _failed(self, count: int, why: Exception) -> None:
        self.failed += count
        if not self.told:
            self.told = True
            said = f"{type(why).__name__}: {why}"
            if isinstance(why, OSError):
                said = f"{why.filename or self.directory}: {why.strerror}"
            elif isinstance(why, CaptureError):
                said = str(why)
            log.warning("capture: %s; requests are answered all the same, and counted as failed", said)


def capture_of(directory: Path, config: Config) -> Capture | None:
    """What records a deployment's requests; None where nothing does."""
    if not config.capture.enabled:
        return None
    service = config.service
    return Capture(
        directory / config.capture.directory, config.capture, service.max_body_bytes, workers=service.workers
    )
