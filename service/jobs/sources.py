"""Where rows come from that are neither JSON nor sent: Parquet, and the users of the deployment's shop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import FieldError, InvalidRequest
from service.jobs.arrow import ROWS, columns_of, encoded, encoded_parts, refuse_values, wrong_fields
from service.jobs.wire import Kind

BUFFER = 1 << 16
"""Bytes of a Parquet column that are read at a time. Its file is not ours: mapped into memory, one that somebody cuts
short would end the process."""

BAD = (pa.ArrowException, OSError, ValueError, TypeError)
"""What a damaged file, or values that JSON does not have, come to."""


async def lines(batches: Iterator[list[bytes]]) -> AsyncIterator[bytes]:
    """Rows as JSON, made a few at a time in a thread."""
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        for line in batch:
            yield line


def parquet_rows(path: Path, kind: Kind) -> Iterator[list[bytes]]:
    """The rows of a Parquet file, of the columns that are fields of a request. Raises InvalidRequest."""
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
            known = columns_of(kind)
            columns = [one for one in file.schema_arrow.names if one in known]
            if "user_id" not in columns:
                raise InvalidRequest(
                    FieldError("parquet", f"has no column user_id; it has {listed(file.schema_arrow)}")
                )
            if wrong := next(wrong_fields((file.schema_arrow.field(one) for one in columns), known), None):
                raise InvalidRequest(FieldError("parquet", f"column {wrong.path} {wrong.message}"))
            for batch in file.iter_batches(batch_size=ROWS, columns=columns, use_threads=False):
                refuse_values(batch)
                yield from encoded_parts(batch)
    except BAD as error:
        raise InvalidRequest(FieldError("parquet", f"cannot be read: {one_line(error)}")) from error


def segment_rows(path: Path, segment: Mapping[str, Any]) -> Iterator[list[bytes]]:
    """The users of a shop whose columns have these values. Raises InvalidRequest."""
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
            check_columns(file.schema_arrow, segment)
            columns = list({"user_id", *segment})
            for batch in file.iter_batches(batch_size=ROWS, columns=columns, use_threads=False):
                wanted = pa.array([True] * batch.num_rows)
                for column, values in segment.items():
                    wanted = pc.and_(wanted, matching(batch.column(column), values))
                if found := encoded(batch.filter(wanted).select(["user_id"])):
                    yield found
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(FieldError("segment", f"data/users.parquet cannot be read: {one_line(error)}")) from error


def check_segment(path: Path, segment: Mapping[str, Any]) -> None:
    """Raises InvalidRequest where no users could be told by it."""
    try:
        check_columns(pq.read_schema(path), segment)
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(FieldError("segment", f"data/users.parquet cannot be read: {one_line(error)}")) from error


def check_columns(schema: pa.Schema, segment: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for a column that there is not, or values of another type."""
    for column, values in segment.items():
        if column not in schema.names:
            raise InvalidRequest(FieldError(f"segment.{column[:100]}", f"no such column; there are {listed(schema)}"))
        kind = schema.field(column).type
        try:
            pa.array(values if isinstance(values, list) else [values], kind)
        except pa.ArrowException as error:
            raise InvalidRequest(FieldError(f"segment.{column}", f"the column is {kind}: {one_line(error)}")) from error


def check_parquet(path: Path, kind: Kind) -> None:
    """Raises InvalidRequest where it has no rows that a job could use."""
    for _ in parquet_rows(path, kind):
        return
    raise InvalidRequest(FieldError("parquet", "has no row"))


def matching(column: pa.Array, values: Any) -> pa.Array:
    """Which rows have the value, or one of them; null is one, too."""
    return pc.is_in(column, value_set=pa.array(values if isinstance(values, list) else [values], column.type))


def listed(schema: pa.Schema) -> str:
    names: Sequence[str] = schema.names
    return ", ".join(names[:30])


def one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
