"""The requests of a batch as an Arrow stream, and its answers as one.

What comes is hostile until it is checked: the schema first, then that nothing is compressed (a kilobyte may say that it
is a terabyte), then each record batch as a whole, and that no value of a dictionary or a view, to which many rows may
point, is longer than any field allows. A row becomes Python values when its turn comes, and not before.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from struct import error as StructError
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from service.arrow_compression import refuse_compressed
from service.errors import FieldError, InvalidRequest, MalformedBody
from service.http.strict import MOST_ERRORS, StrictDecoder
from service.many import Done
from service.many_json import refuse_many
from service.problems import problem_of
from service.turns import Request
from service.wire import RankRequest, Recommendation, RecommendRequest

TEXT, TEXTS, WHOLE, NUMBER, SCALAR = "string", "list<string>", "integer", "number", "string, number or boolean"
CONTEXT = "context."
COMMON = {
    "user_id": (TEXT, ("user_id",)),
    "session_item_ids": (TEXTS, ("session", "item_ids")),
    "placement": (TEXT, ("placement",)),
    "model_version": (TEXT, ("model_version",)),
}
COLUMNS: Mapping[type, Mapping[str, tuple[str, tuple[str, ...]]]] = {
    RankRequest: {**COMMON, "item_ids": (TEXTS, ("item_ids",))},
    RecommendRequest: {
        **COMMON,
        "item_id": (TEXT, ("item_id",)),
        "count": (WHOLE, ("count",)),
        "exclude_item_ids": (TEXTS, ("exclude_item_ids",)),
        "filter_category": (TEXTS, ("filter", "category")),
        "filter_price_min": (NUMBER, ("filter", "price", "min")),
        "filter_price_max": (NUMBER, ("filter", "price", "max")),
    },
}
"""The columns of each kind of request: what they hold, and where it stands in JSON."""
REQUIRED: Mapping[type, Sequence[str]] = {RankRequest: ("user_id", "item_ids"), RecommendRequest: ("user_id",)}
MOST_IN_LIST, MOST_SHARED = 2_000, 1_024
"""Items of any list of a request; bytes of a text of 256 characters."""
LISTS = (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)
UNREADABLE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError, StructError)
"""What pyarrow raises for bytes that are no Arrow stream."""


class ArrowRows:
    """Requests as rows of record batches."""

    def __init__(self, batches: Sequence[pa.RecordBatch], decoder: StrictDecoder) -> None:
        self.decoder, self.batches = decoder, batches
        self.begins = np.cumsum([0, *(one.num_rows for one in batches)]).tolist()

    def __len__(self) -> int:
        return int(self.begins[-1])

    def __getitem__(self, place: int) -> Request:
        which = bisect_right(self.begins, place) - 1
        batch, row = self.batches[which], place - self.begins[which]
        raw: dict[str, Any] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if (value := plain(column[row], name)) is None:
                continue
            path = where(self.decoder.kind, name)
            inner = raw
            for step in path[:-1]:
                inner = inner.setdefault(step, {})
            inner[path[-1]] = value
        found: Request = self.decoder.convert(raw)
        return found


def where(kind: type, name: str) -> tuple[str, ...]:
    return ("context", name.removeprefix(CONTEXT)) if name.startswith(CONTEXT) else COLUMNS[kind][name][1]


def plain(scalar: Any, name: str) -> Any:
    """One cell as Python has it. Raises InvalidRequest for a list that is longer than any may be."""
    if isinstance(scalar, pa.ListScalar) and scalar.is_valid and len(scalar.values) > MOST_IN_LIST:
        raise InvalidRequest(FieldError(name, f"has {len(scalar.values):,} items; {MOST_IN_LIST:,} are the most"))
    return scalar.as_py()


def read(body: bytearray, decoder: StrictDecoder, most: int) -> ArrowRows:
    """The rows of an Arrow stream, at most `most`. Raises MalformedBody or InvalidRequest. Takes a while: meant for a
    thread."""
    data = pa.py_buffer(body)
    try:
        source = pa.BufferReader(data)
        reader = pa.ipc.open_stream(source)
        refuse_schema(reader.schema, decoder.kind)
        refuse_compressed(data)
        batches, rows = [], 0
        for batch in reader:
            rows += batch.num_rows
            refuse_many(rows, most)
            batch.validate(full=True)
            if batch.num_rows:
                refuse_shared(batch)
                batches.append(batch)
        if rest := len(body) - source.tell():
            raise MalformedBody(f"no Arrow stream: {rest:,} bytes after its end")
    except UNREADABLE as error:
        raise MalformedBody(f"no Arrow stream: {' '.join(str(error).split())[:200]}") from error
    return ArrowRows(batches, decoder)


def refuse_schema(schema: pa.Schema, kind: type) -> None:
    """Raises InvalidRequest, which says which field is wrong."""
    if found := list(islice(wrong_fields(schema, kind), MOST_ERRORS)):
        raise InvalidRequest(*found)


def wrong_fields(schema: pa.Schema, kind: type) -> Iterator[FieldError]:
    columns, seen = COLUMNS[kind], set()
    for field in schema:
        name = field.name
        if name in seen:
            yield FieldError(name[:100], "stands twice")
        seen.add(name)
        if name not in columns and not (name.startswith(CONTEXT) and name != CONTEXT):
            yield FieldError(name[:100], f"Unknown field; known: {', '.join(columns)}, {CONTEXT}<feature>")
            continue
        wanted = columns[name][0] if name in columns else SCALAR
        if not (types.is_null(field.type) or fits(field.type, wanted)):
            yield FieldError(name[:100], f"is {str(field.type)[:100]}, expected {wanted}")
    for name in REQUIRED[kind]:
        if name not in seen:
            yield FieldError(name, "Missing")


def fits(kind: pa.DataType, wanted: str) -> bool:
    if wanted == TEXTS:
        return isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType) and fits(kind.value_type, TEXT)
    if wanted == WHOLE:
        return bool(types.is_integer(kind))
    number = types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind)
    if wanted == NUMBER:
        return bool(number)
    if wanted == SCALAR and (number or types.is_boolean(kind)):
        return True
    return is_text(kind.value_type if isinstance(kind, pa.DictionaryType) else kind)


def is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def refuse_shared(batch: pa.RecordBatch) -> None:
    """Raises InvalidRequest for a value longer than any field allows that many rows may point to."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        inner = column.values if isinstance(column, LISTS) else column
        shared = inner.dictionary if isinstance(inner, pa.DictionaryArray) else inner
        if shared is inner and not types.is_string_view(inner.type):
            continue
        if (longest := longest_of(shared)) > MOST_SHARED:
            raise InvalidRequest(FieldError(name, f"a value has {longest:,} bytes; {MOST_SHARED:,} are the most"))


def longest_of(texts: pa.Array) -> int:
    """Bytes of the longest text. Of a valid array."""
    if not len(texts):
        return 0
    buffers, first, last = texts.buffers(), texts.offset, texts.offset + len(texts)
    if types.is_string_view(texts.type):  # 16 bytes each, of which the first four are the length
        return int(np.frombuffer(buffers[1], np.int32).reshape(-1, 4)[first:last, 0].max())
    offsets = np.frombuffer(buffers[1], np.int64 if types.is_large_string(texts.type) else np.int32)
    return int(np.diff(offsets[first : last + 1]).max())


ANSWERS = pa.schema(
    [
        pa.field("index", pa.int32(), nullable=False), ("user_id", pa.string()), ("recommendation_id", pa.string()),
        ("model", pa.string()), ("version", pa.string()), ("group", pa.string()),
        ("item_ids", pa.list_(pa.string())), ("scores", pa.list_(pa.float32())), ("sources", pa.list_(pa.string())),
        ("degraded", pa.list_(pa.string())), ("missing_item_ids", pa.list_(pa.string())),
        ("status", pa.int16()), ("slug", pa.string()), ("detail", pa.string()),
    ]
)  # fmt: skip
"""A row of the answer. The last three are null where all went well, the others but the first two where not."""


class Stream:
    """An Arrow stream of what is done."""

    def __init__(self) -> None:
        self.sink = io.BytesIO()
        self.writer = pa.ipc.new_stream(self.sink, ANSWERS)

    def begin(self) -> bytes:
        return self.written()

    def some(self, done: Sequence[Done]) -> bytes:
        rows = [row_of(one) for one in done]
        columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in ANSWERS]
        self.writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=ANSWERS))
        return self.written()

    def end(self) -> bytes:
        self.writer.close()
        return self.written()

    def written(self) -> bytes:
        found = self.sink.getvalue()
        self.sink.seek(0)
        self.sink.truncate()
        return found


def row_of(one: Done) -> dict[str, Any]:
    row: dict[str, Any] = {"index": one.index, "user_id": one.user_id}
    if isinstance(one.outcome, Exception):
        problem = problem_of(one.outcome)
        slug = problem.type.rpartition(":")[2]
        return {**row, "status": problem.status, "slug": slug, "detail": problem.detail}
    return {**row, **answer_of(one.outcome)}


def answer_of(answer: Recommendation) -> dict[str, Any]:
    missing = answer.missing_item_ids
    return {
        "recommendation_id": answer.recommendation_id,
        "model": answer.model.name, "version": answer.model.version, "group": answer.model.group,
        "item_ids": [item.item_id for item in answer.items],
        "scores": [item.score for item in answer.items],
        "sources": [item.source for item in answer.items],
        "degraded": answer.degraded,
        "missing_item_ids": missing if isinstance(missing, list) else None,
    }  # fmt: skip
