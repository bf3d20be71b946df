"""Numbers on a command line, refused in words that say what was expected."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def number(*, above: float = -math.inf, least: float = -math.inf) -> Callable[[str], float]:
    """Reads a finite number above, or at least, a bound (which is 0 in every use)."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
        if not (math.isfinite(value) and value > above and value >= least):
            raise argparse.ArgumentTypeError(f"{text} is not {'above' if above > least else 'at least'} 0")
        return value

    return read


def whole(least: int) -> Callable[[str], int]:
    """Reads a whole number from `least` on."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return int(text)

    return read
