"""A log of traffic, read as a stream: one request a row, as NDJSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from load.errors import LoadError

COMPLAINTS = 20


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One request: its intended time in microseconds (only differences count), and what to send."""

    at_us: int
    method: str
    path: str
    headers: dict[str, str] = {}
    body: str | None = None


class TrafficLog:
    """Iterating streams the file. `bad` rows are counted, and the first of them kept in `complaints`."""

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        """Raises LoadError where the file cannot be opened; `strict`: also at the first bad row, while iterating."""
        self._path, self._strict = path, strict
        self.bad = 0
        self.complaints: list[str] = []
        try:
            path.open("rb").close()
        except OSError as error:
            raise LoadError(f"{path}: {error.strerror}") from error

    def __iter__(self) -> Iterator[Entry]:
        decoder, last = msgspec.json.Decoder(Entry), None
        with self._path.open("rb") as lines:
            for row, line in enumerate(lines, start=1):
                try:
                    entry = decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    self._complain(row, str(error))
                    continue
                if last is not None and entry.at_us < last:
                    self._complain(row, f"at_us {entry.at_us} is before {last}")
                    continue
                last = entry.at_us
                yield entry

    def _complain(self, row: int, what: str) -> None:
        complaint = f"{self._path}: row {row}: {what}"
        if self._strict:
            raise LoadError(complaint)
        self.bad += 1
        if len(self.complaints) < COMPLAINTS:
            self.complaints.append(complaint)
