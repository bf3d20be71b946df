"""Feast's values as plain JSON has them, and back: what a serialized `Value` is in Feast's HTTP API.

A time is whole seconds since the epoch, bytes are base64, and NaN and the infinities are strings, since JSON has no
such numbers. JSON does not say of which type a value is: a reader that must know asks the registry.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from features.layout import decode_value
from features.values import NO_TIME, messages

DIRECT = frozenset(b"\x12\x18\x20\x38\x62\x6a\x72")  # first bytes of values that are in JSON what they are in Python
FLOATS = frozenset(b"\x29\x35")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d")
NOT_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def plain(data: bytes) -> Any:
    """A serialized Value -> what `json.dumps` can write; None for null. Raises ValueError when it is no Value."""
    if not data:
        return None
    if data[0] in DIRECT:
        return decode_value(data)
    if data[0] in FLOATS:
        value = decode_value(data)
        return number(value) if isinstance(value, float) else value
    from google.protobuf.message import DecodeError

    try:
        return plain_message(messages().Value.FromString(data))
    except DecodeError as error:
        raise ValueError(f"a feature value is cut short or malformed ({len(data)} bytes)") from error


def number(value: float) -> float | str:
    """A float as protobuf's JSON has it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def plain_message(message: Any) -> Any:
    """A Value message of any kind."""
    kind = message.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    value = getattr(message, kind)
    if kind in ("list_val", "set_val"):
        return [plain_message(one) for one in value.val]
    if kind in ("map_val", "struct_val"):
        return plain_map(value)
    if kind in ("map_list_val", "struct_list_val"):
        return [plain_map(one) for one in value.val]
    if kind == "zoned_timestamp_val":
        return zoned(value.unix_timestamp, value.zone)
    if kind == "scalar_map_val":
        raise ValueError("a map whose keys are no strings has no form in JSON")
    if kind.startswith("unix_timestamp"):  # Feast's server writes its mark of no time as a number
        return time_or_none(value) if kind == "unix_timestamp_val" else [time_or_none(one) for one in value.val]
    if kind.endswith(("_list_val", "_set_val")):
        return [scalar(one) for one in value.val]
    return scalar(value)


def time_or_none(value: int) -> int | None:
    return None if value == NO_TIME else value


def plain_map(message: Any) -> dict[str, Any]:
    return {str(name): plain_message(one) for name, one in message.val.items()}


def scalar(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return number(value) if isinstance(value, float) else value


def zoned(seconds: int, zone: str) -> str | None:
    """An instant in its zone, an offset such as `+02:00` or a name, as ISO 8601."""
    from zoneinfo import ZoneInfo

    if seconds == NO_TIME:
        return None
    at = EPOCH + timedelta(seconds=seconds)
    if re.fullmatch(r"[+-]\d\d:\d\d", zone):
        return at.astimezone(datetime.fromisoformat(f"2000-01-01T00:00{zone}").tzinfo).isoformat()
    return at.astimezone(ZoneInfo(zone) if zone else UTC).isoformat()


def written(kind: str, value: Any) -> bytes:
    """What JSON says of a value of a Feast type (`INT64`, `STRING_LIST`) -> the serialized Value; null is empty.

    Raises ValueError, whose text says what was expected.
    """
    if value is None:
        return b""
    message = messages().Value()
    base, _, many = kind.rpartition("_") if kind.endswith(("_LIST", "_SET")) else (kind, "", "")
    if base not in WRITTEN:
        raise ValueError(f"values of the type {kind} cannot be pushed here")
    read = WRITTEN[base]
    if not many:
        setattr(message, f"{kind.lower()}_val", read(value))
    elif not isinstance(value, list):
        raise ValueError(f"Expected a list for {kind}, got {named(value)}")
    else:
        collection = getattr(message, f"{kind.lower()}_val")
        collection.SetInParent()
        collection.val.extend([read(one) for one in value])
    data: bytes = message.SerializeToString()
    return data


def named(value: Any) -> str:
    """A value in a complaint."""
    return repr(value)[:60]


def whole(bits: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise ValueError(f"Expected an integer of {bits} bits, got {named(value)}")
        return value

    return read


def real(value: Any) -> float:
    if isinstance(value, str) and value in NOT_NUMBERS:
        return NOT_NUMBERS[value]
    if type(value) not in (int, float):
        raise ValueError(f"Expected a number, got {named(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"Expected a number that a float can hold, got {named(value)}") from error


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"Expected a string, got {named(value)}")
    return value


def truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"Expected true or false, got {named(value)}")
    return value


def binary(value: Any) -> bytes:
    try:
        return base64.b64decode(text(value), validate=True)
    except binascii.Error as error:
        raise ValueError(f"Expected base64, got {named(value)}") from error


def microseconds(value: Any) -> int:
    """A time in ISO 8601 (UTC where it names no zone) -> microseconds since the epoch."""
    try:
        if not ISO_TIME.match(text(value)):
            raise ValueError
        at = datetime.fromisoformat(value)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return (at - EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"Expected a time such as 2026-01-31T09:00:00Z, got {named(value)}") from error


def seconds(value: Any) -> int:
    return whole(64)(value) if isinstance(value, int) else microseconds(value) // 1_000_000


def parsed(what: str, parse: Callable[[str], Any]) -> Callable[[Any], str]:
    """A string that must be readable as what it is to be."""

    def read(value: Any) -> str:
        try:
            parse(text(value))
        except (ValueError, InvalidOperation) as error:
            raise ValueError(f"Expected {what} as a string, got {named(value)}") from error
        return text(value)

    return read


WRITTEN: dict[str, Callable[[Any], Any]] = {
    "STRING": text, "INT32": whole(32), "INT64": whole(64), "FLOAT": real, "DOUBLE": real, "BOOL": truth,
    "BYTES": binary, "UNIX_TIMESTAMP": seconds, "JSON": parsed("JSON", json.loads), "UUID": parsed("a UUID", UUID),
    "TIME_UUID": parsed("a UUID", UUID), "DECIMAL": parsed("a decimal number", Decimal),
}  # fmt: skip
