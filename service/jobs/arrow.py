"""Rows of a job as an Arrow stream: the columns are the fields of a request.

What comes is hostile until it is checked, as in `service.many_arrow`: the schema, what a compressed record batch would
become, and each as a whole, before a value of it is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from service.arrow_compression import bounded
from service.errors import FieldError, InvalidRequest, MalformedBody
from service.http.strict import MOST_ERRORS
from service.jobs.rows import REQUESTS
from service.jobs.wire import Kind
from service.many_arrow import (
    LISTS,
    MOST_IN_LIST,
    MOST_SHARED,
    NUMBER,
    SCALAR,
    TEXT,
    TEXTS,
    UNREADABLE,
    WHOLE,
    fits,
    longest_of,
)

Spec: TypeAlias = "str | Mapping[str, Spec]"
FLAG, ANY, MOST_CONTEXT = "boolean", "*", 64
COLUMNS: Mapping[str, Spec] = {
    "user_id": TEXT, "item_id": TEXT, "placement": TEXT, "model_version": TEXT, "count": WHOLE, "explain": FLAG,
    "item_ids": TEXTS, "exclude_item_ids": TEXTS, "session": {"item_ids": TEXTS}, "context": {ANY: SCALAR},
    "filter": {"category": TEXTS, "price": {"min": NUMBER, "max": NUMBER}, "in_stock": FLAG},
}  # fmt: skip
"""What each field of a request is in Arrow; of a struct, its fields."""
ROWS, BYTES = 256, 8 << 20
"""Rows in memory at a time, and bytes of them."""
MOST_UNPACKED = 64 << 20
"""Bytes that a compressed record batch may become, with its dictionaries."""


def arrow_rows(path: Path, kind: Kind) -> Iterator[list[bytes]]:
    """The rows of an Arrow IPC stream. Mapped into memory, so that of a large batch only a part is read at a time.

    Raises MalformedBody, or InvalidRequest with the field."""
    try:
        with pa.memory_map(str(path)) as file:
            data, rows = file.read_buffer(), 0
            source = pa.BufferReader(data)
            with pa.ipc.open_stream(source) as stream:
                refuse_schema(stream.schema, kind)
                for _, batch in zip(bounded(pa.BufferReader(data), MOST_UNPACKED), stream, strict=True):
                    rows += batch.num_rows
                    if rows > 8 * data.size:
                        raise MalformedBody(f"no Arrow stream: {rows:,} rows in {data.size:,} bytes")
                    batch.validate(full=True)
                    refuse_values(batch)
                    yield from encoded_parts(batch)
            if rest := data.size - source.tell():
                raise MalformedBody(f"no Arrow stream: {rest:,} bytes after its end")
    except UNREADABLE as error:
        raise MalformedBody(f"no Arrow stream: {' '.join(str(error).split())[:200]}") from error


def refuse_schema(schema: pa.Schema, kind: Kind) -> None:
    """Raises InvalidRequest, which says which field is wrong."""
    if found := list(islice(wrong_fields(schema, columns_of(kind)), MOST_ERRORS)):
        raise InvalidRequest(*found)


def columns_of(kind: Kind) -> dict[str, Spec]:
    return {name: COLUMNS[name] for name in REQUESTS[kind].__struct_fields__}


def wrong_fields(found: Iterable[pa.Field], wanted: Mapping[str, Spec], path: str = "") -> Iterator[FieldError]:
    seen: set[str] = set()
    for field in found:
        if ANY in wanted and len(seen) == MOST_CONTEXT:
            yield FieldError(path.removesuffix("."), f"has more than {MOST_CONTEXT} fields")
            return
        name, spec = f"{path}{field.name}"[:100], wanted.get(field.name, wanted.get(ANY))
        if field.name in seen:
            yield FieldError(name, "stands twice")
        seen.add(field.name)
        if spec is None:
            yield FieldError(name, f"Unknown field; known: {', '.join(wanted)}")
        elif types.is_null(field.type):
            continue
        elif isinstance(spec, str):
            if not is_a(field.type, spec):
                yield FieldError(name, f"is {str(field.type)[:100]}, expected {spec}")
        elif isinstance(field.type, pa.StructType):
            yield from wrong_fields(field.type, spec, f"{name}.")
        else:
            yield FieldError(name, f"is {str(field.type)[:100]}, expected struct<{', '.join(spec)}>")


def is_a(kind: pa.DataType, wanted: str) -> bool:
    """Texts of a list are plain: a long one that all of them point to would be many."""
    if wanted == TEXTS:
        plain = isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType)
        return plain and bool(types.is_string(kind.value_type) or types.is_large_string(kind.value_type))
    return bool(types.is_boolean(kind)) if wanted == FLAG else fits(kind, wanted)


def refuse_values(batch: pa.RecordBatch) -> None:
    """Raises InvalidRequest for values that no field allows, and that would be large, or nothing, in JSON."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for leaf in leaves(column):
            if isinstance(leaf, LISTS):
                refuse_more(name, pc.max(pc.list_value_length(leaf)).as_py(), "items", MOST_IN_LIST)
                leaf = leaf.values
            leaf = leaf.dictionary if isinstance(leaf, pa.DictionaryArray) else leaf
            if types.is_floating(leaf.type):
                if pc.all(pc.is_finite(leaf)).as_py() is False:  # None where all are null
                    raise InvalidRequest(FieldError(name, "has NaN or an infinity, expected finite numbers"))
            elif fits(leaf.type, TEXT):
                refuse_more(name, longest_of(leaf), "bytes", MOST_SHARED)


def refuse_more(name: str, found: int | None, what: str, most: int) -> None:
    if found is not None and found > most:
        raise InvalidRequest(FieldError(name, f"a value has {found:,} {what}; {most:,} are the most"))


def leaves(column: pa.Array) -> Iterator[pa.Array]:
    """The columns within structs."""
    if isinstance(column, pa.StructArray):
        for one in column.flatten():
            yield from leaves(one)
    else:
        yield column


def encoded_parts(batch: pa.RecordBatch) -> Iterator[list[bytes]]:
    """Lines, as many at a time as memory may have."""
    for start in range(0, batch.num_rows, ROWS):
        part = batch.slice(start, ROWS)
        step = max(1, ROWS * BYTES // max(part.nbytes, BYTES))
        for begin in range(0, part.num_rows, step):
            yield encoded(part.slice(begin, step))


def encoded(batch: pa.RecordBatch) -> list[bytes]:
    """A line a row. What is null counts as left out."""
    found: Iterator[dict[str, Any]] = (
        {name: one for name, one in row.items() if one is not None} for row in batch.to_pylist()
    )
    return [msgspec.json.encode(row) for row in found]
