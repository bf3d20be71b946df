"""Every mistake in a value that does not fit its type, each with its whole path.

msgspec stops at the first one, and writes the keys of a table as `[...]`. So what it refuses is taken apart by type,
and it is asked about each part alone. That is slow, and meant for a value that was refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from service.errors import FieldError


def mistakes(value: Any, kind: Any, path: str = "") -> Iterator[FieldError]:
    """What is wrong with `value`, plain Python as JSON or TOML give it, for a field of type `kind` at `path`."""
    try:
        msgspec.convert(value, kind)
        return
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `")
    nothing = True
    allowed = members(kind)
    # Without a place it is the value itself: of another type, or too long a list to look at each of its items.
    if place or any(is_struct(one) for one in allowed):
        for one in within(value, allowed, path):
            nothing = False
            yield one
    if nothing:
        yield FieldError(path, in_words(text, value, allowed))


def within(value: Any, allowed: tuple[Any, ...], path: str) -> Iterator[FieldError]:
    """The mistakes in the parts of a value."""
    for kind in allowed:
        if is_struct(kind) and isinstance(value, dict):
            yield from in_struct(value, kind, path)
        elif get_origin(kind) is list and isinstance(value, list):
            for place, one in enumerate(value):
                yield from mistakes(one, get_args(kind)[0], f"{path}[{place}]")
        elif get_origin(kind) is dict and isinstance(value, dict):
            for name, one in value.items():
                yield from mistakes(name, get_args(kind)[0], beneath(path, name))
                yield from mistakes(one, get_args(kind)[1], beneath(path, name))


def in_struct(value: dict[str, Any], kind: type[msgspec.Struct], path: str) -> Iterator[FieldError]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name, one in value.items():
        if name in fields:
            yield from mistakes(one, fields[name].type, beneath(path, name))
        else:
            yield FieldError(beneath(path, name), f"Unknown field; known: {', '.join(sorted(fields))}")
    for name, field in fields.items():
        if field.required and name not in value:
            yield FieldError(beneath(path, name), "Missing")


def members(kind: Any) -> tuple[Any, ...]:
    """The types that a declaration allows, without their limits."""
    if get_origin(kind) is Annotated:
        return members(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return tuple(one for each in get_args(kind) for one in members(each))
    return (kind,)


def is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def beneath(path: str, name: str) -> str:
    return f"{path}.{name[:100]}" if path else name[:100]


def in_words(text: str, value: Any, allowed: tuple[Any, ...]) -> str:
    """msgspec's message; where only some values are allowed, which."""
    words = [json.dumps(one) for kind in allowed if get_origin(kind) is Literal for one in get_args(kind)]
    if not words or not text.startswith("Invalid enum value"):
        return text
    return f"Expected {' or '.join(words)}, got {json.dumps(value, default=str)[:100]}"
