"""The highest rate at which an SLO is met: doubling until it is missed, then halving the gap. Each step is a run."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

CLOSE = 1.05
LEAST = 1.0


class Verdict(StrEnum):
    """What a step says. `late`: the SLO was missed, but the client did not keep the schedule either."""

    MET = "met"
    MISSED = "missed"
    LATE = "late"


class Found(NamedTuple):
    """`rate` (requests/s) meets the SLO, None where none did; `ceiling` is the lowest rate that did not, and why."""

    rate: float | None
    ceiling: float | None
    why: Verdict | None


def search(step: Callable[[float], Verdict], start: float, low: float | None, high: float | None) -> Found:
    """Find it within a twentieth. Begins at `low`, or at `start` and then goes down as well; stays at or below `high`.

    Rates are requests/s. It takes for granted that what is met at a rate is met at a lower one.
    """
    rate = low if low is not None else (start if high is None else min(start, high))
    met: float | None = None
    ceiling: float | None = None
    why: Verdict | None = None
    while ceiling is None or met is None or ceiling / met > CLOSE:
        verdict = step(rate)
        if verdict is Verdict.MET:
            met = rate
            if high is not None and rate >= high:
                break
        else:
            ceiling, why = rate, verdict
        if met is None:
            if low is not None or rate <= LEAST:
                break
            rate = max(rate / 2, LEAST)
        elif ceiling is None:
            rate = rate * 2 if high is None else min(rate * 2, high)
        else:
            rate = (met + ceiling) / 2
    return Found(met, ceiling, why)
