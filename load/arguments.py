"""Types of command-line arguments that the load commands share. Each refuses nonsense in a few words."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from load.errors import LoadError
from load.slo import parse_slo


def number(*, above: float = -math.inf, least: float = -math.inf) -> Callable[[str], float]:
    """A finite number above one bound, or from another on."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
        if not (math.isfinite(value) and value > above and value >= least):
            raise argparse.ArgumentTypeError(f"{text} is not {'above' if above > least else 'at least'} 0")
        return value

    return parse


def whole(least: int) -> Callable[[str], int]:
    """A whole number from `least` on."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return int(text)

    return parse


def slo(text: str) -> Any:
    """Bounds of an SLO: `p99=20ms,errors=0.1%`."""
    try:
        return parse_slo(text)
    except LoadError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
