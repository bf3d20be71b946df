"""How large the compressed batches of an Arrow stream say that they get: read before anything is unpacked.

What Arrow has verified, but does not tell: tables of Message.fbs (format/Message.fbs of Apache Arrow). Each compressed
buffer begins with its length when unpacked, as int64, -1 where it is not compressed after all. Arrow unpacks into that
much and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import unpack_from

import numpy as np
import pyarrow as pa

from service.errors import FieldError, InvalidRequest, MalformedBody

VERSION, HEADER, CUSTOM = 0, 2, 4
"""Fields of Message."""
BUFFERS, COMPRESSION = 2, 3
"""Fields of RecordBatch."""
ID, BATCH, DELTA = 0, 1, 2
"""Fields of DictionaryBatch."""
V4, OLD = 3, b"ARROW:experimental_compression"
LENGTH = 8


def refuse_compressed(data: pa.Buffer) -> None:
    """Raises InvalidRequest for a compressed record batch or dictionary, MalformedBody for a damaged stream."""
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(data)):
        if unpacked(message) is not None:
            raise InvalidRequest(
                FieldError("", "the record batches are compressed; write them without, and send Content-Encoding: gzip")
            )


def bounded(file: pa.NativeFile, most: int) -> Iterator[int]:
    """The bytes that each record batch unpacks to, with the dictionaries that there are by then; 0 where nothing is
    compressed. Raises InvalidRequest where they are more than `most`, MalformedBody for a damaged stream."""
    dictionaries: dict[int, int] = {}
    for message in pa.ipc.MessageReader.open_stream(file):
        size = unpacked(message) or 0
        if message.type == "dictionary":
            table = header_of(message.metadata)
            assert table is not None
            number, delta = (field_at(message.metadata, table, slot) for slot in (ID, DELTA))
            key = 0 if number is None else unpack_from("<q", message.metadata, number)[0]
            more = delta is not None and message.metadata[delta] != 0
            dictionaries[key] = size + (dictionaries.get(key, 0) if more else 0)
        total = sum(dictionaries.values()) + (size if message.type == "record batch" else 0)
        if total > most:
            raise InvalidRequest(
                FieldError(
                    "", f"a record batch has {total:,} bytes when unpacked; {most:,} are the most: write smaller ones, "
                    "or without compression"
                )
            )  # fmt: skip
        if message.type == "record batch":
            yield total


def unpacked(message: pa.Message) -> int | None:
    """The bytes that a message's buffers say they unpack to; None where it is not compressed. Raises MalformedBody."""
    if message.type not in ("record batch", "dictionary"):
        return None
    data = message.metadata
    table = header_of(data)
    if table is not None and message.type == "dictionary":
        inside = field_at(data, table, BATCH)
        table = None if inside is None else followed(data, inside)
    if table is None or (field_at(data, table, COMPRESSION) is None and not of_old(data)):
        return None
    place = field_at(data, table, BUFFERS)
    if place is None:
        return 0
    vector = followed(data, place)
    count = unpack_from("<I", data, vector)[0]
    buffers = np.frombuffer(data, "<i8", 2 * count, vector + 4).reshape(-1, 2)
    begins = buffers[buffers[:, 1] >= LENGTH, 0]
    body = np.frombuffer(message.body, np.uint8)
    if len(begins) and not 0 <= begins.min() <= begins.max() <= len(body) - LENGTH:
        raise MalformedBody("no Arrow stream: a buffer is not within its message")
    told = body[begins[:, None] + np.arange(LENGTH)].view("<i8").ravel()
    return int(sum(one for one in told.tolist() if one > 0))


def of_old(data: pa.Buffer) -> bool:
    """Whether a message is compressed as Arrow 0.17 did it, which is still read: said among what is custom."""
    root = followed(data, 0)
    version, custom = field_at(data, root, VERSION), field_at(data, root, CUSTOM)
    if custom is None or (version is not None and unpack_from("<h", data, version)[0] > V4):
        return False
    vector = followed(data, custom)
    entries = range(vector + 4, vector + 4 + 4 * unpack_from("<I", data, vector)[0], 4)
    return any(key_of(data, followed(data, at)) == OLD for at in entries)


def key_of(data: pa.Buffer, pair: int) -> bytes:
    place = field_at(data, pair, 0)
    if place is None:
        return b""
    text = followed(data, place)
    return unpack_from(f"<{unpack_from('<I', data, text)[0]}s", data, text + 4)[0]  # type: ignore[no-any-return]


def header_of(data: pa.Buffer) -> int | None:
    """The table that a message is about."""
    place = field_at(data, followed(data, 0), HEADER)
    return None if place is None else followed(data, place)


def field_at(data: pa.Buffer, table: int, slot: int) -> int | None:
    """Where a table of a flatbuffer has its field of that number; None where it was left out."""
    vtable = table - unpack_from("<i", data, table)[0]
    entry = 4 + 2 * slot
    if entry >= unpack_from("<H", data, vtable)[0]:
        return None
    offset = unpack_from("<H", data, vtable + entry)[0]
    return table + offset if offset else None


def followed(data: pa.Buffer, at: int) -> int:
    return int(at + unpack_from("<I", data, at)[0])
