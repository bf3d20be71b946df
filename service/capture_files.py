"""The files of recorded traffic: NDJSON, one an hour and a process, whole files apart from those being written.

20261125T093000.123456Z-4711-9f3c.ndjson            whole; sorts by the time of its first request
20261125T100000.004200Z-4711-02ab.ndjson.partial    being written, by the process that holds its lock
.key                                                what hashes are made with
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.answer_log import held
from service.errors import CaptureError

WHOLE, PARTIAL, KEY = ".ndjson", ".ndjson.partial", ".key"
STAMP = "%Y%m%dT%H%M%S.%fZ"
NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-\d+-[0-9a-f]+" + re.escape(WHOLE))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_US = 3_600_000_000
DAY_S = 86400
KEY_BYTES = 32
BLOCK = 65536

Line = tuple[int, bytes]
"""A request's time in microseconds since the epoch, and its line with the newline."""


@dataclass(slots=True)
class Part:
    """The file that is being written."""

    path: Path
    descriptor: int
    hour: int
    size: int = 0


class TrafficFiles:
    """This process's file, and the upkeep of all. Every method blocks and may raise OSError where it does not say so.

    A file has at most `file_bytes`; whole ones together at most `whole_bytes`, and none is older than `keep_s`
    seconds by `clock` (since the epoch): the oldest go. Files of other names are left alone.
    """

    def __init__(
        self, directory: Path, *, file_bytes: int, whole_bytes: int, keep_s: float, clock: Callable[[], float]
    ) -> None:
        self.directory, self.clock = directory, clock
        self.file_bytes, self.whole_bytes, self.keep_s = file_bytes, whole_bytes, keep_s
        self.part: Part | None = None
        self.untidy = True

    def append(self, rows: Sequence[Line]) -> tuple[int, OSError | None]:
        """Writes rows in order of time, each no longer than a file; returns how many, and what stopped the others.

        Raises nothing.
        """
        written, wrong = 0, None
        for run in self._runs(rows):
            try:
                self._write(run)
                written += len(run)
            except OSError as error:
                wrong = error
        return written, wrong

    def _runs(self, rows: Sequence[Line]) -> Iterator[list[Line]]:
        """The rows, cut where one belongs into another file than the one before."""
        run: list[Line] = []
        room = 0
        for row in rows:
            if run and (row[0] // HOUR_US != run[0][0] // HOUR_US or len(row[1]) > room):
                yield run
                run = []
            if not run:
                room = self._room(row)
            run.append(row)
            room -= len(row[1])
        if run:
            yield run

    def _room(self, row: Line) -> int:
        """Bytes that are left of the file that a row goes to."""
        part = self.part
        if part is None or part.hour != row[0] // HOUR_US or part.size + len(row[1]) > self.file_bytes:
            return self.file_bytes
        return self.file_bytes - part.size

    def _write(self, run: Sequence[Line]) -> None:
        data = memoryview(b"".join([line for _, line in run]))
        part, hour = self.part, run[0][0] // HOUR_US
        if part is not None and (part.hour != hour or part.size + len(data) > self.file_bytes):
            self.rotate()
        if self.untidy:
            self.tidy()
        if self.part is None:
            self.part = self._open(run[0][0])
        part = self.part
        try:
            sent = 0
            while sent < len(data):
                sent += os.write(part.descriptor, data[sent:])
            part.size += sent
        except OSError:
            self._take_back(part)
            raise

    def _take_back(self, part: Part) -> None:
        """Cuts off what was written of a run that did not go in whole; a reader of the rest sees whole lines."""
        try:
            os.ftruncate(part.descriptor, part.size)
        except OSError:
            self.part = None
            os.close(part.descriptor)  # whoever finds it cuts it

    def _open(self, at_us: int) -> Part:
        self.directory.mkdir(parents=True, exist_ok=True)
        stamp = (EPOCH + timedelta(microseconds=at_us)).strftime(STAMP)
        path = self.directory / f"{stamp}-{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}"
        # It has its name only when it has its lock: one without a lock is taken for that of a dead process.
        hidden = path.with_name(f".{path.name}")
        descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.rename(path)
        except OSError:
            os.close(descriptor)
            raise
        return Part(path, descriptor, at_us // HOUR_US)

    def over(self, at_us: int) -> bool:
        """Whether the hour of the file is over, as of the time of what may come next."""
        return self.part is not None and self.part.hour < at_us // HOUR_US

    def rotate(self) -> None:
        """Ends the file that is being written, if there is one."""
        part, self.part = self.part, None
        if part is None:
            return
        self.untidy = True
        try:
            os.fsync(part.descriptor)
            whole(part.path)
        finally:
            os.close(part.descriptor)

    def tidy(self) -> None:
        """Ends the files of dead processes and removes what is too old or too much; by one process at a time."""
        if not self.directory.is_dir():
            return
        with held(self.directory / ".tidying") as mine:
            if not mine:
                return
            for path in self.directory.glob(f"*{PARTIAL}"):
                with suppress(FileNotFoundError):
                    settle(path)
            left = self.whole_bytes
            oldest = (EPOCH + timedelta(seconds=self.clock() - self.keep_s)).strftime(STAMP)
            for path in sorted(self.directory.glob(f"*{WHOLE}"), reverse=True):
                if found := NAME.fullmatch(path.name):
                    left -= path.stat().st_size
                    if left < 0 or found[1] < oldest:
                        path.unlink()
            self.untidy = False


def whole(path: Path) -> None:
    path.rename(path.with_name(path.name.removesuffix(PARTIAL) + WHOLE))


def settle(path: Path) -> None:
    """Ends the file of a process that was killed after its last whole line; one that is being written is left alone."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        end = last_line(descriptor)
        if end == 0 or path.name.startswith("."):
            path.unlink()
        else:
            os.ftruncate(descriptor, end)
            whole(path)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)


def last_line(descriptor: int) -> int:
    """Where the last whole line of a file ends; 0 where there is none."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        begin = max(0, end - BLOCK)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def secret(directory: Path) -> bytes:
    """The key of this directory's hashes, made once, for all processes. Raises OSError, or CaptureError where what is
    there is no key."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / KEY
    if not path.exists():
        own = directory / f"{KEY}.{os.getpid()}-{secrets.token_hex(4)}"
        try:
            own.touch(0o600, exist_ok=False)
            with own.open("wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was first
                path.hardlink_to(own)
        finally:
            own.unlink(missing_ok=True)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise CaptureError(f"{path}: has {len(key)} bytes, a key has {KEY_BYTES}; without it a new one is made")
    return key
