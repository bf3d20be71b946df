"""When requests arrive: pure, seeded functions that return sorted times, float64[n], in seconds from the start.

A Poisson process, given that n arrivals fell into an interval, has them independent and uniform over it (Ross,
*Introduction to Probability Models*, conditional distribution of the arrival times). So each interval here is a count
and that many sorted uniform numbers, which needs no loop over arrivals.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from load.errors import LoadError

Times = NDArray[np.float64]


def poisson(rate: float, duration: float, seed: int) -> Times:
    """Arrivals of a Poisson process of `rate` requests/s over `duration` seconds: many independent callers."""
    _check_positive(rate=rate, duration=duration)
    rng = np.random.default_rng(seed)
    return np.sort(rng.uniform(0.0, duration, size=rng.poisson(rate * duration)))


def constant(rate: float, duration: float) -> Times:
    """One arrival every 1/`rate` seconds, the first at 0, all before `duration` seconds."""
    _check_positive(rate=rate, duration=duration)
    times = np.arange(math.ceil(rate * duration), dtype=np.float64) / rate
    return times[times < duration]


def from_rates(counts: NDArray[np.integer], seed: int, *, speed: float = 1.0) -> Times:
    """Arrivals that follow a recorded load: `counts` (integers[seconds]) requests in each successive second.

    Inside its second each arrival is uniform, so bursts shorter than a second are Poisson's, not the recording's.
    `speed` 60 plays a minute in a second. Raises LoadError for counts that are negative, not whole or not in one row.
    """
    _check_positive(speed=speed)
    if counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer):
        raise LoadError(f"rates: expected one row of whole numbers, got {counts.dtype}{list(counts.shape)}")
    if (counts < 0).any():
        second = int(np.argmax(counts < 0))
        raise LoadError(f"rates: row {second + 1}: {int(counts[second])} is not a number of requests")
    starts = np.repeat(np.arange(len(counts), dtype=np.float64), counts)
    offsets = np.random.default_rng(seed).uniform(0.0, 1.0, size=len(starts))
    return np.sort(starts + offsets) / speed


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise LoadError(f"{name}: {value:g} is not a number above zero")
