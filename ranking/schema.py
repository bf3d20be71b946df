"""The feature schema of a model: which Feast reference feeds which input, and how its value becomes a number.

A model has three user inputs, in the order that the schema lists them:

- dense        float32[B, D]   numbers: `(transform(x) - mean) * scale`
- categorical  int64[B, K]     `vocabulary[i]` is i + 1; 0 is everything else, missing included
- history      int64[B, L]     rows of the item table, newest last, left-padded with -1

and the same two kinds for items. The encoding is part of the bundle, so what training saw is what serving computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

Transform = Literal["identity", "log1p"]
Value = object  # what a feature reader returns: bool, int, float, str, bytes, a list of those, or None


class Dense(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number. `source` is a Feast reference (`view:feature`) for a user, a column of the item table for an item.

    `default` stands in, before the transform, for a value that is missing or outside its max age.
    """

    source: str
    type: str
    transform: Transform = "identity"
    mean: float = 0.0
    scale: float = 1.0
    default: float = 0.0


class Categorical(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One category, encoded by its place in the vocabulary. `source` as in `Dense`."""

    source: str
    type: str
    vocabulary: tuple[str, ...]


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A list of item ids, newest last, of which the last `length` are used."""

    source: str
    type: str
    length: int


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


class Encoder:
    """Turns raw values into model inputs. Holds no state beyond what it precomputes from the schema."""

    def __init__(self, dense: Sequence[Dense], categorical: Sequence[Categorical]) -> None:
        self.dense_default = np.array([one.default for one in dense], np.float64)
        self.mean = np.array([one.mean for one in dense], np.float64)
        self.scale = np.array([one.scale for one in dense], np.float64)
        self.log = np.array([one.transform == "log1p" for one in dense], bool)
        self.codes = [{word: i + 1 for i, word in enumerate(one.vocabulary)} for one in categorical]

    def dense(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """float64[B, D] raw values, NaN where missing -> float32[B, D]. Infinite values count as missing."""
        x = np.where(np.isfinite(raw), raw, self.dense_default)
        if self.log.any():
            x = np.where(self.log, np.log1p(np.maximum(x, 0)), x)
        return ((x - self.mean) * self.scale).astype(np.float32)

    def categorical(self, columns: Sequence[Sequence[Value]]) -> npt.NDArray[np.int64]:
        """K columns of B raw values -> int64[B, K]."""
        size = len(columns[0]) if columns else 0
        out = np.zeros((size, len(self.codes)), np.int64)
        for k, (codes, column) in enumerate(zip(self.codes, columns, strict=True)):
            out[:, k] = [codes.get(word(value), 0) for value in column]
        return out


def word(value: Value) -> str:
    """A categorical raw value as its vocabulary spells it; '' for missing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def number(value: Value) -> float:
    """A dense raw value as a float; NaN for missing or for what is no number."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan
