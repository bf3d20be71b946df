"""Arrow streams that mean harm: each is a mistake that is told, and none takes more memory than its own bytes allow."""

from __future__ import annotations

import io
import resource
import struct
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequest, MalformedBody
from service.http.strict import StrictDecoder
from service.many_arrow import ArrowRows, read
from service.wire import RecommendRequest

DECODER = StrictDecoder(RecommendRequest)
MOST = 10_000


def stream(*batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batches[0].schema, **options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def whole(body: bytes) -> list[RecommendRequest | str]:
    """All requests of a stream, or what is wrong with each. Raises MalformedBody or InvalidRequest."""
    rows = read(bytearray(body), DECODER, MOST)
    return [one_of(rows, place) for place in range(len(rows))]


def one_of(rows: ArrowRows, place: int) -> RecommendRequest | str:
    try:
        found = rows[place]
        assert isinstance(found, RecommendRequest)
        return found
    except InvalidRequest as error:
        return str(error)


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


TEXT = pa.dictionary(pa.int8(), pa.string())
BATCH = pa.record_batch(
    {
        "user_id": pa.array(["u1", None, "u3"]).dictionary_encode(), "count": pa.array([1, None, 3], pa.int16()),
        "session_item_ids": pa.array([["a", "b"], None, []], pa.list_(TEXT)),
        "filter_price_max": pa.array([1.5, 2.0, None]), "exclude_item_ids": pa.array([["x"], [], ["y", "z"]]),
        "context.flag": pa.array([True, False, None]),
        "placement": pa.array(["home"] * 3, pa.string_view()), "item_id": pa.nulls(3),
    }
)  # fmt: skip
BODY = stream(BATCH, BATCH)


def test_the_stream_that_the_others_are_made_of_is_right() -> None:
    found = whole(BODY)
    assert len(found) == 6 and found[0] == found[3]
    assert isinstance(found[2], RecommendRequest) and found[2].exclude_item_ids == ["y", "z"] and found[2].count == 3


def test_wherever_a_stream_ends_too_early_that_is_said_or_all_before_it_is_right() -> None:
    """A stream may end without a mark, between two messages: what tells then is HTTP's own length."""
    right = whole(BODY)
    for end in range(len(BODY)):
        try:
            found = whole(BODY[:end])
        except MalformedBody as error:
            assert str(error).startswith("no Arrow stream: ")
        else:
            assert found == right[: len(found)] and len(found) in (0, 3, 6)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.integers(0, 8 * len(BODY) - 1), min_size=1, max_size=6), st.integers(0, len(BODY)))
def test_whichever_bits_are_flipped_it_is_a_request_or_a_mistake(places: list[int], end: int) -> None:
    damaged = bytearray(BODY[: end or len(BODY)])
    for place in places:
        if place // 8 < len(damaged):
            damaged[place // 8] ^= 1 << place % 8
    with suppress(MalformedBody, InvalidRequest):
        assert all(isinstance(one, RecommendRequest | str) for one in whole(bytes(damaged)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_stream_are_a_mistake(data: bytes) -> None:
    for body in (data, BODY[:8] + data, b"\xff\xff\xff\xff" + data):
        with pytest.raises((MalformedBody, InvalidRequest)):
            whole(body)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_batches_and_dictionaries_are_refused_before_anything_is_unpacked(codec: str) -> None:
    """64 MB of zeros are a few kilobytes: what they come to is only said by their sender."""
    options = pa.ipc.IpcWriteOptions(compression=codec)
    plain = pa.record_batch({"user_id": ["\0" * (64 << 20)]})
    body, before = stream(plain, options=options), peak()
    del plain
    assert len(body) < 1 << 20
    with pytest.raises(InvalidRequest, match="compressed"):
        whole(body)
    only_dictionary = pa.record_batch({"user_id": pa.array(["u" * 1000] * 2).dictionary_encode()})
    with pytest.raises(InvalidRequest, match="compressed"):
        whole(stream(only_dictionary, options=options))
    assert peak() - before < 16 << 20


def test_so_is_what_is_compressed_as_arrow_did_it_once() -> None:
    """Said among what is custom of a message, which pyarrow still reads."""
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    with pa.ipc.new_stream(sink, BATCH.schema, options=options) as writer:
        writer.write_batch(BATCH, custom_metadata={"ARROW:experimental_compression": "lz4"})
    with pytest.raises(InvalidRequest, match="compressed"):
        whole(sink.getvalue())


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0x7FFFFFF8, 0x40000000, -2])
def test_a_length_that_lies_takes_no_memory(length: int) -> None:
    before = peak()
    for body in (
        b"\xff\xff\xff\xff" + struct.pack("<i", length) + BODY[8:],
        struct.pack("<i", length) + BODY[8:],
        BODY + BODY,
    ):
        with pytest.raises(MalformedBody, match="no Arrow stream"):
            whole(body)
    assert peak() - before < 16 << 20


def test_the_length_of_a_body_that_lies_takes_no_memory() -> None:
    """Every eight bytes of the stream in turn are a terabyte."""
    before = peak()
    for place in range(0, len(BODY) - 8, 4):
        body = bytearray(BODY)
        body[place : place + 8] = struct.pack("<q", 1 << 40)
        try:
            whole(bytes(body))
        except (MalformedBody, InvalidRequest):
            continue
    assert peak() - before < 32 << 20


def test_rows_without_bytes_are_counted_before_they_are_looked_at() -> None:
    """A column of nulls has no buffers, however long it says that it is."""
    before, nulls = peak(), pa.Array.from_buffers(pa.null(), (1 << 31) - 1, [None])
    body = stream(pa.record_batch({"user_id": nulls}))
    with pytest.raises(InvalidRequest, match="more than 10,000"):
        whole(body)
    assert len(body) < 1000 and peak() - before < 16 << 20


def test_batches_without_rows_are_nothing() -> None:
    assert whole(stream(*[BATCH.slice(0, 0)] * 5000, BATCH)) == whole(stream(BATCH))


def test_a_long_value_that_many_rows_point_to_is_refused() -> None:
    """A row of two thousand times the same megabyte would be two gigabytes."""
    long = "u" * 5000
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int8()), pa.array([long]))
    listed = pa.ListArray.from_arrays(pa.array([0, 2000], pa.int32()), shared)
    view = struct.pack("<i4sii", len(long), b"uuuu", 0, 0)
    views = pa.Array.from_buffers(
        pa.string_view(), 2000, [None, pa.py_buffer(view * 2000), pa.py_buffer(long.encode())]
    )
    for column, rows in ((listed, 1), (pa.ListArray.from_arrays(pa.array([0, 2000], pa.int32()), views), 1)):
        body = stream(pa.record_batch({"user_id": ["u1"] * rows, "exclude_item_ids": column}))
        with pytest.raises(InvalidRequest, match="exclude_item_ids: a value has 5,000 bytes; 1,024 are the most"):
            whole(body)
    with pytest.raises(InvalidRequest, match="user_id: a value has 5,000 bytes"):
        whole(stream(pa.record_batch({"user_id": views})))


def test_a_list_longer_than_any_is_one_row_s_mistake() -> None:
    columns = {"user_id": ["u1", "u2"], "exclude_item_ids": [["a"] * 2001, ["a"] * 2000]}
    first, second = whole(stream(pa.record_batch(columns)))
    assert first == "exclude_item_ids: has 2,001 items; 2,000 are the most" and isinstance(second, RecommendRequest)


def test_indices_and_text_that_are_none_are_found_before_they_are_used() -> None:
    batch = stream(pa.record_batch({"user_id": pa.array(["aaaa", "bbbb"]).dictionary_encode()}))
    for old, new in ((b"\0\0\0\0\1\0\0\0", b"\0\0\0\0\x09\0\0\0"), (b"aaaabbbb", b"aaa\xffbbbb")):
        assert old in batch
        with pytest.raises(MalformedBody):
            whole(new.join(batch.rsplit(old, 1)))


def test_a_schema_that_is_wide_or_deep_is_refused_by_its_first_mistakes() -> None:
    deep = pa.string()
    for _ in range(50):
        deep = pa.list_(deep)
    with pytest.raises(InvalidRequest, match="user_id: is list<item: list<item: "):
        whole(stream(pa.record_batch({"user_id": pa.nulls(1, deep)})))
    wide = pa.record_batch({f"c{place}": pa.nulls(0) for place in range(20_000)})
    with pytest.raises(InvalidRequest) as caught:
        whole(stream(wide))
    assert len(caught.value.errors) == 20
    twice = pa.RecordBatch.from_arrays([pa.array(["a"])] * 2, names=["user_id", "user_id"])
    with pytest.raises(InvalidRequest, match="user_id: stands twice"):
        whole(stream(twice))
