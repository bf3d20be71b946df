"""Feast's `Value` messages of whatever kind, read by protobuf: for what `features.layout` does not read itself.

Feast's description of the message is loaded without the rest of Feast, which takes seconds and a hundred megabytes.
"""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

NAME = "feast.protos.feast.types.Value_pb2"
NO_TIME = -(2**63)
PLAIN = frozenset(f"{kind}_val" for kind in ("bytes", "string", "int32", "int64", "double", "float", "bool"))
LISTS = frozenset(f"{one.removesuffix('_val')}_list_val" for one in PLAIN)


def decode_any(data: bytes) -> Any:
    """A serialized Value -> the Python value that Feast's own SDK gives; None for null. Raises ValueError."""
    from google.protobuf.message import DecodeError

    try:
        message = messages().Value.FromString(data)
    except DecodeError as error:
        raise ValueError(f"a feature value is cut short or malformed ({len(data)} bytes)") from error
    kind = message.WhichOneof("val")
    if kind is None:
        return None
    value = getattr(message, kind)
    if kind in PLAIN:
        return value
    if kind in LISTS:
        return list(value.val)
    if kind == "unix_timestamp_val":
        return time_of(value)
    if kind == "unix_timestamp_list_val":
        return [time_of(one) for one in value.val]
    return by_feast(data)


def time_of(seconds: int) -> datetime | None:
    return None if seconds == NO_TIME else datetime.fromtimestamp(seconds, UTC)


def by_feast(data: bytes) -> Any:
    """Maps, sets, decimals and what else there may be."""
    from features.store import import_feast

    import_feast()
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import feast_value_type_to_python_type

    return feast_value_type_to_python_type(Value.FromString(data))


@lru_cache(maxsize=1)
def messages() -> Any:
    """The module of Feast's that describes the message."""
    if NAME in sys.modules:
        return sys.modules[NAME]
    home = importlib.util.find_spec("feast")
    assert home is not None and home.origin is not None
    path = Path(home.origin).parent.joinpath(*NAME.split(".")[1:]).with_suffix(".py")
    spec = importlib.util.spec_from_file_location("endcap_feast_value", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
