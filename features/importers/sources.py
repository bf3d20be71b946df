"""One file a shop hands over, CSV or Parquet, read whole into Arrow columns without guessing at types.

A CSV file (RFC 4180, UTF-8, comma, header in its first line; `.csv` or `.csv.gz`) gives strings only, so "007" stays
"007". A Parquet file (`.parquet`, `.pq`) gives the types it has.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from features.errors import InputError
from features.progress import Progress

BLOCK = 8 << 20  # bytes; one CSV record must fit in it


@dataclass(frozen=True, slots=True)
class Source:
    """A file and its columns."""

    path: Path
    table: pa.Table

    def error(self, message: str, *, index: int | None = None, column: str | None = None) -> InputError:
        """The error of record `index` (from 0). Its row is the line a CSV record starts in, or from 1 in Parquet."""
        row = None if index is None else _line_of(self.path, index) if is_csv(self.path) else index + 1
        return InputError(message, file=self.path, row=row, column=column)

    def require(self, columns: Sequence[str]) -> None:
        """Raises InputError naming the first of `columns` that the file lacks."""
        for column in columns:
            if column not in self.table.column_names:
                raise self.error(
                    f"there is no such column; there are {', '.join(self.table.column_names)}", column=column
                )


def is_csv(path: Path) -> bool:
    return path.name.endswith((".csv", ".csv.gz"))


def read_sources(files: Sequence[Path], progress: Progress) -> list[Source]:
    """All files, in order. `progress` counts bytes on disk. Raises InputError for one that is unreadable or empty."""
    for path in files:
        if not path.is_file():
            raise InputError("there is no such file", file=path)
    total, before, sources = sum(path.stat().st_size for path in files), 0, []
    for path in files:
        start = before
        sources.append(_read(path, lambda done, start=start: progress(start + done, total)))  # type: ignore[misc]
        before += path.stat().st_size
        progress(before, total)
    return sources


def _read(path: Path, advance: Callable[[int], None]) -> Source:
    if path.suffix in (".parquet", ".pq"):
        table = _read_parquet(path)
    elif is_csv(path):
        table = _read_csv(path, advance)
    else:
        raise InputError("its name ends in none of .csv, .csv.gz, .parquet", file=path)
    for name, times in Counter(table.column_names).items():
        if times > 1:
            raise InputError("several columns have this name", file=path, column=name)
    if table.num_rows == 0:
        raise InputError("it holds no rows", file=path)
    return Source(path, table)


def _read_parquet(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"this cannot be read as Parquet: {_first_line(error)}", file=path) from error


def _read_csv(path: Path, advance: Callable[[int], None]) -> pa.Table:
    header = _header(path)
    options = {
        "read_options": pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK),
        "parse_options": pyarrow.csv.ParseOptions(newlines_in_values=True),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
        ),
    }
    batches = []
    try:
        with pa.OSFile(str(path)) as file:
            stream = pa.CompressedInputStream(file, "gzip") if path.suffix == ".gz" else file
            with pyarrow.csv.open_csv(stream, **options) as reader:
                for batch in reader:
                    batches.append(batch)
                    advance(file.tell())
                return pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, OSError) as error:
        raise _find_fault(path, len(header), _first_line(error)) from error


def _header(path: Path) -> list[str]:
    """The names in a CSV file's first line."""
    try:
        header = next(csv.reader(_text_lines(path)), [])
    except (UnicodeDecodeError, csv.Error, OSError, EOFError, zlib.error) as error:
        raise _find_fault(path, 0, _first_line(error)) from error
    if not header:
        raise InputError("it is empty, or its first line is", file=path)
    for place, name in enumerate(header, start=1):
        if not name.strip():
            raise InputError(f"column {place} of {len(header)} has no name", file=path, row=1)
    return header


def _find_fault(path: Path, width: int, otherwise: str) -> InputError:
    """Reads a CSV file that Arrow refused line by line, to say what is wrong where (`width` 0: any)."""
    try:
        for line, content in enumerate(_byte_lines(path), start=1):
            try:
                content.decode()
            except UnicodeDecodeError:
                return InputError("this is not UTF-8", file=path, row=line)
        for line, record in _records(path):
            if width and len(record) != width:
                return InputError(f"this row has {len(record)} fields, the header {width}", file=path, row=line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return InputError(f"this gzip file is cut short or damaged: {_first_line(error)}", file=path)
    except (OSError, csv.Error) as error:
        return InputError(f"this cannot be read as CSV: {_first_line(error)}", file=path)
    return InputError(f"this cannot be read as CSV: {otherwise}", file=path)


def _line_of(path: Path, index: int) -> int | None:
    """The line in which record `index` (from 0, header and blank lines not counted) of a CSV file starts."""
    try:
        for place, (line, _) in enumerate(_records(path)):
            if place == index + 1:
                return line
    except csv.Error:  # Python's reader stops at fields of 128 KiB, Arrow's does not
        return None
    return None


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(first line, fields) of each record, header included, blank lines passed over as Arrow does."""
    reader, line = csv.reader(_text_lines(path)), 1
    for record in reader:
        if record:
            yield line, record
        line = reader.line_num + 1


def _byte_lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def _text_lines(path: Path) -> Iterator[str]:
    with (
        gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text,
    ):
        yield from text


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
