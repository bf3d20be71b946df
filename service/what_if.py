"""Features changed by hand: `view.feature=value`, read as the type that the model's schema says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec
import orjson

from ranking.schema import UserSchema
from service.errors import FieldError, InvalidRequest

LARGEST = 2**63 - 1
WORDS = frozenset({"String", "UnixTimestamp"})
KINDS: dict[str, tuple[type, str]] = {
    "Int32": (int, "a whole number"),
    "Int64": (int, "a whole number"),
    "Float32": (float, "a number"),
    "Float64": (float, "a number"),
    "Bool": (bool, "true or false"),
}
"""Feast's types, what Python makes of them, and how they are called."""


def changes(sets: Iterable[str], schema: UserSchema) -> dict[str, Any]:
    """Texts such as `user_profile.country=DE` or `user_profile:country=DE` -> values by Feast reference.

    A word stands as it is; a number, a boolean or a list is JSON; `null` is a missing one of those. Raises
    InvalidRequest, which names every bad one, for a feature that the model does not read, one that is there twice, and
    a value of another type.
    """
    known = schema.references()
    found: dict[str, Any] = {}
    errors = []
    for place, text in enumerate(sets):
        name, equals, said = text.partition("=")
        reference = name if ":" in name else name.replace(".", ":", 1)
        if not equals or reference not in known:
            what = f"{name[:100]!r} is no feature of this model" if equals else f"{text[:100]!r} is no feature=value"
            error = f"{what}; features are {', '.join(sorted(known))}"
        elif reference in found:
            error = f"{reference} is set twice"
        else:
            try:
                found[reference] = value_of(said, known[reference])
                continue
            except ValueError as refused:
                error = f"{reference} {refused}"
        errors.append(FieldError(f"set[{place}]", error))
    if errors:
        raise InvalidRequest(*errors)
    return found


def value_of(text: str, kind: str) -> Any:
    """A value of Feast's type `kind`. Raises ValueError, which says what is wanted."""
    if kind in WORDS:
        return text
    inner = kind.removeprefix("Array(").removesuffix(")")
    python, called = KINDS.get(inner, (str, "a string"))
    wanted: Any = list[python] if inner != kind else python  # type: ignore[valid-type]
    called = f"a JSON list, each of it {called}" if inner != kind else called
    try:
        value = msgspec.convert(orjson.loads(text), wanted | None, strict=True)
    except (msgspec.ValidationError, orjson.JSONDecodeError) as error:
        raise ValueError(f"takes {called}, not {text[:100]!r}") from error
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, float) and not math.isfinite(one):
            raise ValueError(f"takes {called}, not {text[:100]!r}")
        if isinstance(one, int) and not -LARGEST <= one <= LARGEST:
            raise ValueError("is out of range: a number may have up to 9.2e18 on either side of 0")
    return value
