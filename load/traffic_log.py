"""The traffic log: requests and the times at which they are meant to be sent, a row each (docs/traffic-log.md).

NDJSON, plain or gzipped, and Parquet hold the same columns. Both are read and written a piece at a time, so that a log
may be larger than memory.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, cast

import msgspec

from load.errors import LoadError

if TYPE_CHECKING:
    from load.traffic_parquet import Rows

SUFFIXES = (".ndjson", ".ndjson.gz", ".parquet")
COMPLAINTS = 20
LONGEST_LINE = 16 * 2**20
"""Bytes of NDJSON; a file without line ends must not fill the memory."""

LAST_US = 2**63 - 1
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_PATH = re.compile(r"/[\x21-\x7e]*")
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_CLIENTS_OWN = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})
_SECRET = frozenset({"authorization", "proxy-authorization", "cookie"})


class Entry(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One request, to be sent at `at_us`: microseconds of which only differences count. `path` includes the query."""

    at_us: int
    method: str
    path: str
    headers: dict[str, str] = {}
    body: str | None = None


class TrafficLog:
    """A log in a file. Each iteration reads it from its start, and holds no more of it than a few thousand rows.

    A row that is none, or earlier than the one before it, is counted in `bad`, and the first 20 are told in
    `complaints` ("LOG: row 7: …", rows from 1); `strict` raises LoadError instead. Both begin anew with each iteration.
    Raises LoadError that names the path for what cannot be opened, or is no log as a whole.
    """

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        self.path, self.strict = path, strict
        self.bad = 0
        self.complaints: list[str] = []
        self._suffix = suffix_of(path)
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise LoadError(f"{path}: {error.strerror}") from error
        if self._suffix == ".parquet":
            _parquet_rows(path)

    def __iter__(self) -> Iterator[Entry]:
        self.bad, self.complaints = 0, []
        rows = self._parquet() if self._suffix == ".parquet" else self._ndjson()
        latest = 0
        for number, entry in rows:
            if (wrong := fault(entry)) is not None:
                self._complain(number, wrong)
            elif entry.at_us < latest:
                self._complain(number, f"at_us {entry.at_us} is earlier than {latest}, a row before it")
            else:
                latest = entry.at_us
                yield entry

    def _ndjson(self) -> Iterator[tuple[int, Entry]]:
        decoder = msgspec.json.Decoder(Entry)
        number = 0
        try:
            with gzip.open(self.path) if self._suffix.endswith(".gz") else self.path.open("rb") as file:
                for number, line in enumerate(_lines(cast(IO[bytes], file)), start=1):
                    if line.isspace():
                        continue
                    if len(line) > LONGEST_LINE:
                        self._complain(number, f"longer than {LONGEST_LINE:,} bytes")
                        continue
                    try:
                        entry = decoder.decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError) as error:
                        self._complain(number, str(error))
                    else:
                        yield number, entry
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self._complain(number + 1, f"gzip is broken here, what follows is lost: {error}")
        except OSError as error:
            raise LoadError(f"{self.path}: {error.strerror}") from error

    def _parquet(self) -> Iterator[tuple[int, Entry]]:
        for number, row in enumerate(_parquet_rows(self.path), start=1):
            try:
                entry = msgspec.convert(row, Entry)
            except msgspec.ValidationError as error:
                self._complain(number, str(error))
            else:
                yield number, entry

    def _complain(self, number: int, wrong: str) -> None:
        text = f"{self.path}: row {number}: {wrong}"
        if self.strict:
            raise LoadError(text)
        self.bad += 1
        if len(self.complaints) < COMPLAINTS:
            self.complaints.append(text)


class Writer:
    """A log in the making: what is written is in the file when the context ends, and nothing is if it ends in an error.

    Raises LoadError where the path cannot be written, and for an entry that a reader would call bad.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._suffix = suffix_of(path)
        self._beside = path.with_name(path.name + ".part")
        self._latest = 0
        self._encoder = msgspec.json.Encoder()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:  # a signal may come here, and then nobody calls __exit__
            undo.callback(self._discard)
            try:
                self._file: IO[bytes] = undo.enter_context(self._beside.open("wb"))
                self._out: Any = self._encoded(self._file)
            except OSError as error:
                raise LoadError(f"{self.path}: {error.strerror}") from error
            undo.pop_all()
        return self

    def _encoded(self, file: IO[bytes]) -> Any:
        """What writes the log's bytes to an open file."""
        if self._suffix == ".parquet":
            from load.traffic_parquet import ParquetOut

            return ParquetOut(file)
        # Without a name and a date: the same rows are the same bytes.
        return gzip.GzipFile("", "wb", 6, file, mtime=0) if self._suffix == ".ndjson.gz" else file

    def write(self, entry: Entry) -> None:
        """Add a row."""
        wrong = fault(entry)
        if wrong is None and entry.at_us < self._latest:
            wrong = f"at_us {entry.at_us} is earlier than {self._latest}, a row before it"
        if wrong is not None:
            raise LoadError(f"{self.path}: row {self.rows + 1}: {wrong}")
        try:
            if self._suffix == ".parquet":
                self._out.write(entry)
            else:
                self._out.write(self._encoder.encode(entry) + b"\n")
        except OSError as error:
            raise LoadError(f"{self.path}: {error.strerror}") from error
        self._latest = entry.at_us
        self.rows += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                with contextlib.suppress(OSError):  # what went wrong first is what is told
                    self._close()
            else:
                self._close()
                self._beside.replace(self.path)
        except OSError as error:
            raise LoadError(f"{self.path}: {error.strerror}") from error
        finally:
            self._discard()

    def _discard(self) -> None:
        with contextlib.suppress(OSError):  # where there is no such place, there is nothing to remove
            self._beside.unlink(missing_ok=True)

    def _close(self) -> None:
        with self._file:
            if self._out is not self._file:
                self._out.close()


def suffix_of(path: Path) -> str:
    """How a log is kept, told by its name: one of SUFFIXES. Raises LoadError for another."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    raise LoadError(f"{path}: a traffic log's name ends in {', '.join(SUFFIXES)}")


def fault(entry: Entry) -> str | None:
    """What keeps an entry from being sent as one HTTP request, or from being in a log at all; None: nothing."""
    if not 0 <= entry.at_us <= LAST_US:
        return f"at_us {entry.at_us} is not from 0 to 2**63 - 1"
    if not _sendable(entry.method):
        return f"method {entry.method[:40]!r} is no HTTP method"
    if _PATH.fullmatch(entry.path) is None:
        return f"path {entry.path[:40]!r} is not / and then printable ASCII without spaces"
    for name, value in entry.headers.items():
        if (wrong := _header_fault(name, value)) is not None:
            return wrong
    if entry.body is not None and not entry.body.isascii():
        try:
            entry.body.encode()
        except UnicodeEncodeError:
            return "body has half a surrogate pair, which is no UTF-8"
    return None


@lru_cache(maxsize=1000)
def _header_fault(name: str, value: str) -> str | None:
    if not _sendable(name):
        return f"header {name[:40]!r} is no HTTP header's name"
    if name.lower() in _CLIENTS_OWN:
        return f"header {name} is the client's own"
    if name.lower() in _SECRET:
        return f"header {name} is a secret, and may not be in a log"
    if _VALUE.fullmatch(value) is None:
        return f"header {name}: {value[:40]!r} is no HTTP header's value"
    return None


@lru_cache(maxsize=1000)
def _sendable(token: str) -> bool:
    return _TOKEN.fullmatch(token) is not None


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines with their ends; of one that is too long only so much that it can be told."""
    while line := file.readline(LONGEST_LINE + 1):
        yield line
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE + 1)


def _parquet_rows(path: Path) -> Rows:
    from load.traffic_parquet import Rows

    return Rows(path)
