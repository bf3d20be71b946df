"""Arrow streams that are uploaded as jobs and mean harm: each is a mistake that is told, and none takes memory."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequest, MalformedBody, ServiceError
from service.jobs.arrow import arrow_rows
from service.jobs.sources import parquet_rows
from service.jobs.wire import Kind
from tests.service.test_many_arrow import peak, stream


def rows(folder: Path, body: bytes, kind: Kind = "recommendations") -> list[Any]:
    """The first ones. Raises MalformedBody or InvalidRequest."""
    path = folder / "upload.arrow"
    path.write_bytes(body)
    return [json.loads(line) for lines in islice(arrow_rows(path, kind), 100) for line in lines]


def batch(**columns: Any) -> bytes:
    return stream(pa.record_batch(columns))


WHOLE = pa.record_batch(
    {
        "user_id": pa.array(["u1", None, "u3"]).dictionary_encode(), "count": pa.array([1, None, 3], pa.int16()),
        "session": [{"item_ids": ["a", "b"]}, None, {"item_ids": []}], "explain": [True, False, None],
        "filter": [{"category": ["x"], "price": {"min": 1.5, "max": None}}, None, {"category": None, "price": None}],
        "context": [{"country": "DE", "orders": 3}] * 3, "placement": pa.array(["home"] * 3, pa.string_view()),
        "exclude_item_ids": [["x"], [], None], "item_id": pa.nulls(3),
    }
)  # fmt: skip
BODY = stream(WHOLE, WHOLE)


def test_whatever_a_request_may_say_can_be_said_in_columns(tmp_path: Path) -> None:
    first, second, third = rows(tmp_path, BODY)[:3]
    assert first == {
        "user_id": "u1", "count": 1, "session": {"item_ids": ["a", "b"]}, "explain": True, "placement": "home",
        "filter": {"category": ["x"], "price": {"min": 1.5, "max": None}}, "exclude_item_ids": ["x"],
        "context": {"country": "DE", "orders": 3},
    }  # fmt: skip
    assert "user_id" not in second and third["count"] == 3
    ranked = batch(user_id=["u1"], item_ids=[["i1"]])
    assert rows(tmp_path, ranked, "rank") == [{"user_id": "u1", "item_ids": ["i1"]}]


SCHEMAS: list[tuple[dict[str, Any], str, str]] = [
    ({"usr_id": ["u1"]}, "usr_id", "Unknown field; known: user_id, "),
    ({"user_id": [b"u1"]}, "user_id", "is binary, expected string"),  # or base64 would be taken for it
    ({"user_id": [1]}, "user_id", "is int64, expected string"),
    ({"count": [2.0]}, "count", "is double, expected integer"),
    ({"explain": ["yes"]}, "explain", "is string, expected boolean"),
    ({"item_ids": [["i1"]]}, "item_ids", "Unknown field"),  # that is for rank
    ({"session": ["s1"]}, "session", "is string, expected struct<item_ids>"),
    ({"session": [{"item_ids": [b"i"]}]}, "session.item_ids", "is list<item: binary>, expected list<string>"),
    ({"session": [{"items": ["i"]}]}, "session.items", "Unknown field; known: item_ids"),
    ({"filter": [{"price": {"min": "1"}}]}, "filter.price.min", "is string, expected number"),
    ({"context": [{"at": pa.scalar(0, pa.timestamp("s"))}]}, "context.at", "is timestamp[s], expected string, number"),
    ({"context": [{f"f{n}": 1 for n in range(65)}]}, "context", "has more than 64 fields"),
    ({"exclude_item_ids": pa.array([["a"]], pa.list_(pa.dictionary(pa.int8(), pa.string())))}, "exclude_item_ids",
     "expected list<string>"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "path", "says"), SCHEMAS)
def test_a_wrong_schema_says_which_field(tmp_path: Path, columns: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        rows(tmp_path, batch(**columns))
    assert [(one.path, says in one.message) for one in caught.value.errors] == [(path, True)], caught.value


def test_a_column_that_stands_twice_is_told(tmp_path: Path) -> None:
    twice = pa.RecordBatch.from_arrays([pa.array(["a"])] * 2, names=["user_id", "user_id"])
    with pytest.raises(InvalidRequest, match="user_id: stands twice"):
        rows(tmp_path, stream(twice))


LONG = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int8()), pa.array(["u" * (2 << 20)]))
MANY = pa.ListArray.from_arrays(pa.array([0, 1 << 26], pa.int32()), pa.nulls(1 << 26))
BOMBS: list[tuple[bytes, str]] = [
    (stream(pa.record_batch({"user_id": ["\0" * (64 << 20)]}), options=pa.ipc.IpcWriteOptions(compression="zstd")),
     "are the most: write smaller ones"),
    (batch(user_id=LONG), "user_id: a value has 2,097,152 bytes; 1,024 are the most"),
    (batch(user_id=["u" * 1025]), "user_id: a value has 1,025 bytes"),
    (batch(exclude_item_ids=MANY), "exclude_item_ids: is list<item: null>, expected list<string>"),
    (batch(exclude_item_ids=[[""] * 100_000]), "exclude_item_ids: a value has 100,000 items; 2,000 are the most"),
    (batch(user_id=pa.Array.from_buffers(pa.null(), (1 << 31) - 1, [None])), "2,147,483,647 rows in "),
    (batch(filter=[{"price": {"min": float("nan")}}]), "filter: has NaN or an infinity"),
    (b"\xff\xff\xff\xff" + struct.pack("<i", 0x7FFFFFF8) + BODY[8:], "no Arrow stream: "),
    (BODY[:-100], "no Arrow stream: "),
    (BODY + b"x", "no Arrow stream: 1 bytes after its end"),
    (b"", "no Arrow stream: "),
]  # fmt: skip


def test_what_would_be_large_is_refused_before_it_is(tmp_path: Path) -> None:
    """Compressed, pointed to, of nothing at all, or by a length that lies."""
    before = peak()
    for body, says in BOMBS:
        with pytest.raises((InvalidRequest, MalformedBody)) as caught:
            rows(tmp_path, body)
        assert says in str(caught.value), body[:100]
    assert peak() - before < 16 << 20


def test_the_length_of_a_body_that_lies_takes_no_memory(tmp_path: Path) -> None:
    """Every eight bytes of the stream in turn are a terabyte."""
    before = peak()
    for place in range(0, len(BODY) - 8, 8):
        with suppress(MalformedBody, InvalidRequest):
            rows(tmp_path, BODY[:place] + struct.pack("<q", 1 << 40) + BODY[place + 8 :])
    assert peak() - before < 32 << 20


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 8 * len(BODY) - 1), min_size=1, max_size=6), st.integers(1, len(BODY)))
def test_whichever_bits_are_flipped_it_is_rows_or_a_mistake(places: list[int], end: int) -> None:
    damaged = bytearray(BODY[:end])
    for place in places:
        if place // 8 < end:
            damaged[place // 8] ^= 1 << place % 8
    with TemporaryDirectory() as folder, suppress(MalformedBody, InvalidRequest):
        assert all(isinstance(one, dict) for one in rows(Path(folder), bytes(damaged)))


@pytest.mark.parametrize(
    ("columns", "says"),
    [({"user_id": [b"u1"]}, "column user_id is binary, expected string"),
     ({"user_id": ["u1"], "session": ["s"]}, "column session is string, expected struct"),
     ({"user_id": ["u" * 2000]}, "user_id: a value has 2,000 bytes")],
)  # fmt: skip
def test_parquet_of_other_types_is_told_with_its_column(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    """Columns that are no field of a request may be anything."""
    pq.write_table(pa.table({**columns, "revenue": [b"\xff"]}), tmp_path / "day.parquet")
    with pytest.raises(ServiceError, match=says):
        list(parquet_rows(tmp_path / "day.parquet", "recommendations"))
