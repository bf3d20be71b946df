"""Compressed Arrow uploads of jobs: what they say they unpack to is bounded before anything is unpacked."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from service.arrow_compression import bounded
from service.errors import InvalidRequest, MalformedBody
from service.jobs.arrow import MOST_UNPACKED, arrow_rows
from tests.service.batches import stream

CODECS = ["zstd", "lz4"]
FRAMES = re.compile(rb"\x28\xb5\x2f\xfd|\x04\x22\x4d\x18")
"""What a frame of zstd or lz4 begins with."""
TEXT = "user" * 250
OLD = {"ARROW:experimental_compression": "zstd"}


def compressed(columns: dict[str, Any], codec: str, rows: int | None = None) -> bytes:
    return stream(columns, rows, options=pa.ipc.IpcWriteOptions(compression=codec))


def telling(body: bytes, size: int) -> bytes:
    """The stream, whose text says that it unpacks to so many bytes."""
    told = struct.pack("<q", len(TEXT))
    (begins,) = (one.start() for one in FRAMES.finditer(body) if body[: one.start()].endswith(told))
    return body[: begins - 8] + struct.pack("<q", size) + body[begins:]


def rows_of(body: bytes, tmp_path: Path) -> list[bytes]:
    path = tmp_path / "upload.arrow"
    path.write_bytes(body)
    return [line for lines in arrow_rows(path, "recommendations") for line in lines]


@pytest.mark.parametrize("codec", CODECS)
def test_batches_that_unpack_to_little_are_read(codec: str, tmp_path: Path) -> None:
    users = [f"u{place}" for place in range(3000)]
    columns = {"user_id": users, "placement": pa.array(["home"] * 3000).dictionary_encode()}
    assert rows_of(compressed(columns, codec, 1000), tmp_path) == rows_of(stream(columns, 700), tmp_path)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [1 << 30, 1 << 40, (1 << 63) - 1])
def test_what_says_that_it_is_large_is_refused_in_one_line_and_not_made_room_for(
    codec: str, size: int, tmp_path: Path
) -> None:
    """Arrow would make as much room as is said, and then see how much there is."""
    for columns in ({"user_id": [TEXT]}, {"user_id": pa.array([TEXT]).dictionary_encode()}):
        body, before = telling(compressed(columns, codec), size), pa.default_memory_pool().max_memory()
        with pytest.raises(InvalidRequest, match=r"a record batch has [\d,]+ bytes when unpacked; 67,108,864 are the"):
            rows_of(body, tmp_path)
        assert pa.default_memory_pool().max_memory() - before < 16 << 20


def test_the_batches_before_one_that_is_too_large_are_read(tmp_path: Path) -> None:
    body = telling(compressed({"user_id": ["u", TEXT]}, "zstd", 1), MOST_UNPACKED)
    (tmp_path / "upload.arrow").write_bytes(body)
    lines = arrow_rows(tmp_path / "upload.arrow", "recommendations")
    assert len(next(lines)) == 1
    with pytest.raises(InvalidRequest, match="when unpacked"):
        next(lines)


def test_a_length_that_is_wrong_is_a_damaged_stream(tmp_path: Path) -> None:
    for size in (len(TEXT) - 1, len(TEXT) + 1, 0, -2):
        with pytest.raises(MalformedBody, match="no Arrow stream"):
            rows_of(telling(compressed({"user_id": [TEXT]}, "zstd"), size), tmp_path)


def test_the_way_in_which_arrow_compressed_once_counts_too(tmp_path: Path) -> None:
    """Arrow 0.17 said it among what is custom of a message, and pyarrow still reads that."""
    batch, sink = pa.record_batch({"user_id": ["u" * 64]}), pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch, custom_metadata={"other": "thing", **OLD})
    with pytest.raises(InvalidRequest, match="when unpacked"):
        rows_of(sink.getvalue().to_pybytes(), tmp_path)


def test_dictionaries_count_as_long_as_they_are_there() -> None:
    """One that takes another's place is not added to it; one that goes on with it, and one beside it, are."""
    kind = pa.dictionary(pa.int32(), pa.string())
    texts = pa.array([TEXT + str(place) for place in range(100)])
    size = 100 * len(TEXT)

    def sizes(emit_deltas: bool, *dictionaries: pa.Array) -> list[float]:
        sink, schema = pa.BufferOutputStream(), pa.schema({"a": kind, "b": kind})
        options = pa.ipc.IpcWriteOptions(compression="zstd", emit_dictionary_deltas=emit_deltas)
        with pa.ipc.new_stream(sink, schema, options=options) as writer:
            for one in dictionaries:
                column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), one)
                writer.write_batch(pa.record_batch([column, column], schema=schema))
        return [round(one / size, 1) for one in bounded(pa.BufferReader(sink.getvalue()), 1 << 30)]

    other = pa.array([one.as_py()[::-1] for one in texts])
    assert sizes(False, texts, other) == [2.0, 2.0]
    assert sizes(True, texts, pa.concat_arrays([texts, other])) == [2.0, 4.0]
