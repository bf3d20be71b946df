"""What a raw feature value is to a model: a number or a word, or missing."""

from __future__ import annotations

import math

from ranking.schema import Value


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
