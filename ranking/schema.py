"""The feature schema of a model: which Feast reference feeds which input, and how its value becomes a number.

A model has three user inputs, in the order that the schema lists them:

- dense        float32[B, D]   numbers: `(transform(x) - mean) * scale`
- categorical  int64[B, K]     `vocabulary[i]` is i + 1; 0 is everything else, missing included
- history      int64[B, L]     rows of the item table, newest last, left-padded with -1

and the same two kinds for items. The encoding is part of the bundle, so what training saw is what serving computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

Transform = Literal["identity", "log1p"]
Value = object  # what a feature reader returns: bool, int, float, str, bytes, a list of those, or None


class Dense(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number. `source` is a Feast reference (`view:feature`) for a user, a column of the item table for an item.

    `default` stands in, before the transform, for a value that is missing or outside its max age. With a `vocabulary`
    the raw value is a word and the number its place in it, from 0; a word that is not in it counts as missing.
    """

    source: str
    type: str
    transform: Transform = "identity"
    mean: float = 0.0
    scale: float = 1.0
    default: float = 0.0
    vocabulary: tuple[str, ...] | None = None


class Categorical(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One category, encoded by its place in the vocabulary. `source` as in `Dense`."""

    source: str
    type: str
    vocabulary: tuple[str, ...]


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A list of item ids, newest last, of which the last `length` are used."""

    source: str
    type: str
    length: Annotated[int, msgspec.Meta(ge=1)]


class UserSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The user side. `purchased` is the list that the already-bought rule reads; it feeds no model input."""

    feature_service: str
    dense: tuple[Dense, ...]
    categorical: tuple[Categorical, ...]
    history: History
    purchased: str | None = None
    max_age_s: dict[str, float | None] = {}

    def references(self) -> dict[str, str]:
        """Every Feast reference that the model reads -> its Feast type, in reading order."""
        inputs: list[Dense | Categorical | History] = [*self.dense, *self.categorical, self.history]
        named = {one.source: one.type for one in inputs}
        return named | ({self.purchased: "Array(String)"} if self.purchased else {})


class ItemSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The item side: columns of the item table."""

    dense: tuple[Dense, ...]
    categorical: tuple[Categorical, ...]

    def columns(self) -> list[str]:
        return [*(one.source for one in self.dense), *(one.source for one in self.categorical)]


def check_references(wanted: Mapping[str, str], offered: Mapping[str, str]) -> list[str]:
    """What keeps a model's references (name -> type) from being read from a registry's; empty when nothing does."""
    views = sorted({name.split(":")[0] for name in offered})
    complaints = []
    for name, kind in wanted.items():
        if name not in offered:
            view = name.split(":")[0]
            known = "the view has no such feature" if view in views else f"Feast has no such view, only {views}"
            complaints.append(f"{name}: {known}")
        elif offered[name] != kind:
            complaints.append(f"{name}: trained on {kind}, Feast has {offered[name]}")
    return complaints
