"""The directory of a job, which is all that is known of it: whoever has it can go on.

DIR/jobs/<id>/job.json        what was asked for, and how far it is; replaced as a whole
DIR/jobs/<id>/input.ndjson    a request a line, complete and checked
DIR/jobs/<id>/result.ndjson   an answer a line, in the order of the input: its whole lines are what is done
DIR/jobs/<id>/progress.json   how much of the result is on the disk for good, and how fast it grows
DIR/jobs/<id>/cancel          somebody wants it to end
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
from msgspec import Struct

from service.jobs.wire import ENDED, Kind, State

ID = re.compile(r"[0-9a-f]{24}")
log = logging.getLogger(__name__)

ABANDONED_S = 60.0
"""After which a directory that is being filled, and that nobody holds, is removed."""


class Source(Struct, frozen=True, omit_defaults=True):
    """What the input is still to be made from; of neither where it is there already. `fields`: those that a row leaves
    out."""

    segment: dict[str, Any] | None = None
    parquet: str | None = None
    fields: dict[str, Any] = {}


class Record(Struct, frozen=True):
    """job.json. Times are seconds since the epoch. `fingerprint` is of the body that asked for it."""

    id: str
    kind: Kind
    state: State
    created_at: float
    fingerprint: str
    source: Source = Source()
    callback_url: str | None = None
    total: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    error: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class Progress(Struct, frozen=True):
    """`size`: bytes of the result that are on the disk for good, and whole lines. `rate`: rows a second."""

    done: int = 0
    failed: int = 0
    size: int = 0
    rate: float | None = None


class JobFiles:
    """The jobs in `directory`. Every method blocks, and raises OSError where the disk refuses."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def of(self, job: str) -> Path:
        return self.directory / job

    def ids(self) -> list[str]:
        with suppress(FileNotFoundError):
            return [one.name for one in os.scandir(self.directory) if ID.fullmatch(one.name)]
        return []

    def read(self, job: str) -> Record | None:
        """None where there is no such job (any more)."""
        if not ID.fullmatch(job):
            return None
        try:
            return msgspec.json.decode((self.of(job) / "job.json").read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:  # of another version of Endcap; it must not stop the other jobs
            log.warning("job %s is left out: job.json: %s", job, error)
            return None

    def all(self) -> list[Record]:
        """The oldest first."""
        found = [record for job in self.ids() if (record := self.read(job)) is not None]
        return sorted(found, key=lambda one: (one.created_at, one.id))

    def write(self, record: Record) -> None:
        durably(self.of(record.id) / "job.json", msgspec.json.encode(record))

    def progress(self, job: str) -> Progress:
        with suppress(FileNotFoundError):
            return msgspec.json.decode((self.of(job) / "progress.json").read_bytes(), type=Progress)
        return Progress()

    def advance(self, job: str, progress: Progress) -> None:
        replaced(self.of(job) / "progress.json", msgspec.json.encode(progress))

    def cancel(self, job: str) -> None:
        (self.of(job) / "cancel").touch()

    def cancelled(self, job: str) -> bool:
        return (self.of(job) / "cancel").exists()

    def remove(self, job: str) -> None:
        shutil.rmtree(self.of(job), ignore_errors=True)

    @contextmanager
    def drafting(self) -> Iterator[Path]:
        """A directory to fill, removed at the end of the block unless `publish` has given it a job's name."""
        self.directory.mkdir(parents=True, exist_ok=True)
        folder = self.directory / f".{token_hex(8)}.partial"
        folder.mkdir()
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)

    def publish(self, folder: Path, record: Record) -> Record:
        """Makes a filled directory a job. Where there is one of that id already, that one."""
        durably(folder / "job.json", msgspec.json.encode(record))
        try:
            folder.rename(self.of(record.id))
        except OSError:
            if (found := self.read(record.id)) is not None:
                return found
            raise
        sync(self.directory)
        return record

    def tidy(self, before: float) -> None:
        """Removes jobs that ended before `before`, and what an upload left that a killed process was taking in."""
        for record in self.all():
            if record.ended_at is not None and record.ended_at < before:
                self.remove(record.id)
        for folder in self.directory.glob(".*.partial"):
            with suppress(FileNotFoundError):
                if folder.is_dir() and time.time() - folder.stat().st_mtime > ABANDONED_S and not busy(folder):
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether this process has the lock of that name, until the end of the block; another's ends with the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def busy(folder: Path) -> bool:
    """Whether a living process is filling it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def replaced(path: Path, content: bytes) -> None:
    """Makes `content` all of the file, in one step."""
    beside = path.with_name(f".{path.name}.partial")
    beside.write_bytes(content)
    beside.replace(path)


def durably(path: Path, content: bytes) -> None:
    """The same, and there after a power cut."""
    beside = path.with_name(f".{path.name}.partial")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
