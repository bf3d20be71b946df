"""Values that a request brings along in place of stored ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ranking.schema import UserSchema
from service.errors import FieldError, InvalidRequest

LARGEST = 2**63 - 1


def override(context: Mapping[str, Any] | None, schema: UserSchema) -> dict[str, Any]:
    """A request's `context` -> values by Feast reference. Raises InvalidRequest for a name that is no input of the
    model, for one that two views share, and for a value of the wrong kind."""
    if not context:
        return {}
    values: dict[str, Any] = {}
    errors: list[FieldError] = []
    numbers = {one.source for one in schema.dense}
    inputs = [*numbers, *(one.source for one in schema.categorical)]
    for name, value in context.items():
        matches = [one for one in inputs if name in (one, one.partition(":")[2])]
        if len(matches) != 1:
            known = ", ".join(sorted(matches or inputs))
            what = "is ambiguous, it may be" if matches else "is no input of this model; inputs are"
            errors.append(FieldError(f"context.{name}", f"{what} {known}"))
        elif value is not None and isinstance(value, str) == (matches[0] in numbers):
            wanted = "a number" if matches[0] in numbers else "a string"
            errors.append(FieldError(f"context.{name}", f"{matches[0]} takes {wanted}, not {value!r}"))
        elif isinstance(value, int | float) and not -LARGEST <= value <= LARGEST:
            errors.append(
                FieldError(f"context.{name}", "is out of range: a number may have up to 9.2e18 on either side of 0")
            )
        else:
            values[matches[0]] = value
    if errors:
        raise InvalidRequest(*errors)
    return values
