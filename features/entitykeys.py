"""Redis keys of entities with any join keys, as Feast's `serialize_entity_key` (version 3) makes them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from features.errors import BadLookup
from features.plain import binary, named, seconds, whole

TYPES = {"BYTES": 1, "STRING": 2, "INT32": 3, "INT64": 4, "UNIX_TIMESTAMP": 8}
"""The value types that a join key may have, by their numbers in Feast's `ValueType`."""
WIDTHS = {"INT32": struct.Struct("<i"), "INT64": struct.Struct("<q"), "UNIX_TIMESTAMP": struct.Struct("<q")}
SIZE = struct.Struct("<I")


def sized(data: bytes) -> bytes:
    return SIZE.pack(len(data)) + data


def key_head(join_keys: Sequence[str]) -> bytes:
    """What the keys of all entities with these join keys, sorted, begin with."""
    names = [SIZE.pack(TYPES["STRING"]) + sized(name.encode()) for name in join_keys]
    return SIZE.pack(len(join_keys)) + b"".join(names)


def key_values(kind: str, values: Sequence[Any], path: str) -> tuple[list[bytes], list[Any]]:
    """Entity values as JSON says them -> their parts of the keys, and what an answer says that they were.

    As Feast takes them: a string may be given as a number, and a number as a string. Raises BadLookup, with the place
    under `path`, for null and for what is of another type.
    """
    if kind not in TYPES:
        raise BadLookup(path, f"entities by a value of the type {kind} are not supported")
    head, parts, said = SIZE.pack(TYPES[kind]), list[bytes](), list[Any]()
    for row, value in enumerate(values):
        try:
            one, data = encoded(kind, value)
        except ValueError as error:
            raise BadLookup(f"{path}[{row}]", str(error)) from error
        said.append(one)
        parts.append(head + sized(data))
    return parts, said


def encoded(kind: str, value: Any) -> tuple[Any, bytes]:
    """One entity value, and its bytes in the key. Raises ValueError."""
    if kind == "STRING":
        if type(value) is int:
            value = str(value)
        if not isinstance(value, str):
            raise ValueError(f"Expected a string, got {named(value)}")
        return value, value.encode()
    if kind == "BYTES":
        return value, binary(value)
    if kind == "UNIX_TIMESTAMP":
        value = seconds(value)
    elif isinstance(value, str):
        value = int(value) if value.removeprefix("-").isdecimal() and len(value) < 21 else value
    value = whole(32 if kind == "INT32" else 64)(value)
    return value, WIDTHS[kind].pack(value)
