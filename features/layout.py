"""Feast's Redis layout, as its `docs/specs/online_store_format.md` describes it. Pure functions.

One hash an entity. Key: the entity key serialized (version 3), then the project's name. Field of a feature: the 4
little-endian bytes of murmur3_32(`view:feature`), value a serialized `feast.types.Value`. Field `_ts:<view>`: the event
time of the view's row, a serialized `google.protobuf.Timestamp`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import mmh3

from features.values import decode_any

STRING = 2  # feast.types.ValueType.STRING


def key_maker(project: str, join_key: str) -> Callable[[str], bytes]:
    """entity id -> Redis key, for an entity with one string join key (entity key serialization version 3)."""
    name = join_key.encode()
    head = struct.pack("<III", 1, STRING, len(name)) + name + struct.pack("<I", STRING)
    tail = project.encode()

    def key(entity_id: str) -> bytes:
        encoded = entity_id.encode()
        return head + struct.pack("<I", len(encoded)) + encoded + tail

    return key


@lru_cache(maxsize=10_000)
def feature_field(view: str, feature: str) -> bytes:
    """The hash field that holds a feature's value."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def timestamp_field(view: str) -> bytes:
    """The hash field that holds the event time of a view's row."""
    return f"_ts:{view}".encode()


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A protobuf varint at `at` -> (its unsigned 64 bits, the place after it). Raises IndexError when cut short."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint is longer than 10 bytes")


def signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def decode_timestamp(data: bytes) -> float:
    """A serialized protobuf Timestamp -> seconds since the epoch. Zero fields are absent in proto3.

    Raises ValueError when it is not one.
    """
    seconds = nanos = at = 0
    try:
        while at < len(data):
            tag, (value, at) = data[at], varint(data, at + 1)
            if tag == 0x08:
                seconds = signed(value)
            elif tag == 0x10:
                nanos = value
            else:
                raise ValueError(f"no Timestamp has a field with tag {tag:#x}")
    except IndexError as error:
        raise ValueError("a Timestamp is cut short") from error
    return seconds + nanos * 1e-9


SMALL = [bytes([value]) for value in range(128)]


def encode_varint(value: int) -> bytes:
    """A signed 64-bit integer as a protobuf varint."""
    if 0 <= value < 128:
        return SMALL[value]
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_timestamp(at_us: int) -> bytes:
    """Microseconds since the epoch -> a serialized protobuf Timestamp. Zero fields are absent in proto3."""
    seconds, micros = divmod(at_us, 1_000_000)
    whole = b"\x08" + encode_varint(seconds) if seconds else b""
    return whole + (b"\x10" + encode_varint(micros * 1000) if micros else b"")


def encode_int64(value: int) -> bytes:
    """A Feast Int64 as a serialized Value."""
    return b"\x20" + encode_varint(value)


def encode_float32(value: float) -> bytes:
    """A Feast Float32 as a serialized Value."""
    return b"\x35" + _FLOAT.pack(value)


def encode_bool(value: bool) -> bytes:
    """A Feast Bool as a serialized Value."""
    return b"\x38\x01" if value else b"\x38\x00"


def encode_string(value: str) -> bytes:
    """A Feast String as a serialized Value."""
    data = value.encode()
    return b"\x12" + encode_varint(len(data)) + data


def encode_strings(values: Sequence[str]) -> bytes:
    """A Feast Array(String) as a serialized Value."""
    parts = [value.encode() for value in values]
    body = b"".join([b"\x0a" + encode_varint(len(part)) + part for part in parts])
    return b"\x62" + encode_varint(len(body)) + body


_SIGN = 1 << 63
_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")
FLOAT_SIZE, FLOAT_TAG, decode_float = 5, 0x35, _FLOAT.unpack_from
"""A Feast Float32, which most features are: its bytes, the first one, and what reads the others (`decode_float(data,
1)[0]`) without the calls that `decode_value` takes to find out."""


def decode_value(data: bytes) -> Any:
    """A serialized `feast.types.Value` -> the Python value that Feast's own SDK gives; None for null or empty.

    Scalars and lists of strings are read directly; every other type goes through Feast's protobuf class. Values inside
    the `val` oneof are written even when zero, so an empty message is a null. Raises ValueError when it is no Value.
    """
    if not data:
        return None
    decode = _FAST.get(data[0])
    try:
        return decode(data) if decode else decode_any(data)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"a feature value is cut short or malformed ({len(data)} bytes)") from error


def _whole(value: Any, end: int, data: bytes) -> Any:
    if end != len(data):
        return decode_any(data)
    return value


def _string(data: bytes) -> Any:
    size, at = varint(data, 1)
    return _whole(data[at : at + size].decode() if at + size <= len(data) else None, at + size, data)


def _int(data: bytes) -> Any:
    value, at = varint(data, 1)
    return _whole(signed(value), at, data)


def _bool(data: bytes) -> Any:
    return _whole(data[1] != 0, 2, data)


def _float(data: bytes) -> Any:
    return _whole(_FLOAT.unpack_from(data, 1)[0], 5, data)


def _double(data: bytes) -> Any:
    return _whole(_DOUBLE.unpack_from(data, 1)[0], 9, data)


def _strings(data: bytes) -> Any:
    size, at = varint(data, 1)
    end = at + size
    if end != len(data):
        return decode_any(data)
    values = []
    while at < end:
        if data[at] != 0x0A:
            return decode_any(data)
        length, at = varint(data, at + 1)
        if at + length > end:
            raise ValueError("a list of strings is cut short")
        values.append(data[at : at + length].decode())
        at += length
    return values


def _integers(data: bytes) -> Any:
    """Packed varints, as protobuf writes lists of integers: tag and size of the list, then of its one field."""
    size, at = varint(data, 1)
    if at + size != len(data) or not size:
        return decode_any(data)
    if data[at] != 0x0A:
        return decode_any(data)
    size, at = varint(data, at + 1)
    if at + size != len(data):
        return decode_any(data)
    values = []
    value = shift = 0
    for byte in data[at:]:
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            values.append(value if value < _SIGN else value - (1 << 64))
            value = shift = 0
        elif (shift := shift + 7) > 63:
            return decode_any(data)
    return decode_any(data) if shift else values


# tag byte = field number << 3 | wire type, by the numbers in feast's Value.proto
_FAST: dict[int, Callable[[bytes], Any]] = {
    0x12: _string,
    0x18: _int,
    0x20: _int,
    0x29: _double,
    0x35: _float,
    0x38: _bool,
    0x62: _strings,
    0x6A: _integers,
    0x72: _integers,
}
