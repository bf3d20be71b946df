"""The traffic log: one request a row, NDJSON, in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from load.errors import LoadError

COMPLAINTS = 20


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One request: `at_us` in microseconds, of which only differences count; `path` with its query; `body` as text."""

    at_us: int
    method: str
    path: str
    headers: dict[str, str] = {}
    body: str | None = None


class TrafficLog:
    """Streams the entries of a log; bad rows are counted in `bad`, the first 20 told in `complaints`.

    Raises LoadError that names the path where it cannot be opened; `strict`: also for the first bad row.
    """

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        self._path, self._strict = path, strict
        self.bad = 0
        self.complaints: list[str] = []

    def __iter__(self) -> Iterator[Entry]:
        decoder = msgspec.json.Decoder(Entry)
        last = None
        try:
            with self._path.open("rb") as lines:
                for row, line in enumerate(lines, start=1):
                    try:
                        entry = decoder.decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError) as error:
                        self._complain(row, str(error))
                        continue
                    if last is not None and entry.at_us < last:
                        self._complain(row, f"at_us {entry.at_us} is before the row above")
                        continue
                    last = entry.at_us
                    yield entry
        except OSError as error:
            raise LoadError(f"{self._path}: {error.strerror}") from error

    def _complain(self, row: int, what: str) -> None:
        complaint = f"{self._path}: row {row}: {what}"
        if self._strict:
            raise LoadError(complaint)
        self.bad += 1
        if len(self.complaints) < COMPLAINTS:
            self.complaints.append(complaint)
