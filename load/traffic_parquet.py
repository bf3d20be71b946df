"""A traffic log's columns as Parquet, a piece at a time. Apart from traffic_log: pyarrow is slow to import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from load.errors import LoadError

if TYPE_CHECKING:
    from load.traffic_log import Entry

SCHEMA = pa.schema(
    [
        pa.field("at_us", pa.int64(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("headers", pa.map_(pa.string(), pa.string())),
        pa.field("body", pa.string()),
    ]
)
NEEDED = ("at_us", "method", "path")
AT_ONCE = 1_000
"""Rows that are Python objects at a time."""

GROUP_ROWS, GROUP_BYTES = 10_000, 8 * 2**20
"""A row group is full at so many rows, or so much of body and path: it is what the writer holds in memory."""


class Rows:
    """The rows of a file as dicts for msgspec to check. Raises LoadError for a file that has other columns, or none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise LoadError(f"{path}: no Parquet file: {_first_line(error)}") from error
        for name in NEEDED:
            if name not in schema.names:
                raise LoadError(f"{path}: there is no column {name}")
        for field in schema:
            if field.name not in SCHEMA.names:
                raise LoadError(f"{path}: column {field.name} is none of a traffic log")
            if not _like(field.type, SCHEMA.field(field.name).type):
                raise LoadError(f"{path}: column {field.name} is {field.type}, not {SCHEMA.field(field.name).type}")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(AT_ONCE, use_threads=False):
                    for row in batch.to_pylist():
                        row["headers"] = dict(row.get("headers") or ())
                        yield row
        except (OSError, pa.ArrowException) as error:
            raise LoadError(f"{self.path}: {_first_line(error)}") from error


class ParquetOut:
    """Writes entries as row groups, zstd, to an open file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self._waiting: list[Entry] = []
        self._bytes = 0

    def write(self, entry: Entry) -> None:
        """Add a row. Raises OSError."""
        self._waiting.append(entry)
        self._bytes += len(entry.path) + len(entry.body or "")
        if len(self._waiting) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what waits, and the footer. Raises OSError."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        rows, self._waiting, self._bytes = self._waiting, [], 0
        if rows:
            columns = {field.name: pa.array([getattr(one, field.name) for one in rows], field.type) for field in MADE}
            columns["headers"] = pa.array([list(one.headers.items()) for one in rows], SCHEMA.field("headers").type)
            self._writer.write_table(pa.table(columns, schema=SCHEMA))


MADE = [field for field in SCHEMA if field.name != "headers"]
"""Columns that an entry has as Arrow wants them."""


def _like(found: Any, wanted: Any) -> bool:
    """Other tools write the same column in several ways."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):
        return True
    if pa.types.is_integer(wanted):
        return bool(pa.types.is_integer(found))
    if pa.types.is_map(wanted):
        return pa.types.is_map(found) and _like(found.key_type, pa.string()) and _like(found.item_type, pa.string())
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
