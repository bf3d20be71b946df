"""Durations in an HdrHistogram: fixed memory (about 230 KB) however many are recorded, 3 significant digits.

HdrHistogram: Gil Tene, http://hdrhistogram.org. Kept in whole microseconds; spoken to in seconds.
"""

from __future__ import annotations

import math

from hdrh.histogram import HdrHistogram

HIGHEST_S = 86_400.0


class Durations:
    """Recorded durations. Empty, it has no mean, maximum or percentile: they are None, never 0."""

    def __init__(self, digits: int = 3) -> None:
        """Keep `digits` significant digits, 1 to 5; 2 take 32 KB."""
        self._hdr = HdrHistogram(1, round(HIGHEST_S * 1e6), digits)
        self._sum = 0.0
        self._max = 0.0

    def record(self, seconds: float) -> None:
        """Add one duration, in seconds. Above a day it counts as a day; below zero it is a fault of the caller."""
        if seconds < 0:
            raise ValueError(f"a duration of {seconds} s")
        seconds = min(seconds, HIGHEST_S)
        self._hdr.record_value(round(seconds * 1e6))
        self._sum += seconds
        self._max = max(self._max, seconds)

    def merge(self, other: Durations) -> None:
        """Take in all that another one holds."""
        self._hdr.add(other._hdr)
        self._sum += other._sum
        self._max = max(self._max, other._max)

    def clear(self) -> None:
        """Forget all that was recorded, and keep the memory."""
        self._hdr.reset()
        self._sum = self._max = 0.0

    def __getstate__(self) -> tuple[bytes, float, float]:
        """For another process: HdrHistogram's own encoding (V2, compressed), and what it does not hold exactly."""
        return self._hdr.encode(), self._sum, self._max

    def __setstate__(self, state: tuple[bytes, float, float]) -> None:
        encoded, self._sum, self._max = state
        self._hdr = HdrHistogram.decode(encoded)

    @property
    def count(self) -> int:
        """How many were recorded."""
        return int(self._hdr.total_count)

    def mean(self) -> float | None:
        """Exact arithmetic mean in seconds."""
        return self._sum / self.count if self.count else None

    def max(self) -> float | None:
        """Exact maximum in seconds."""
        return self._max if self.count else None

    def percentile(self, percent: float) -> float | None:
        """The duration in seconds that `percent` of 100 do not exceed, to 3 significant digits."""
        if not self.count:
            return None
        # The port rounds the rank to the nearest, so that p99 of 60 would be the second largest; Java's rounds up.
        rank = math.ceil(percent / 100 * self.count - 1e-9)
        value = float(self._hdr.get_value_at_percentile(100 * rank / self.count))
        # HdrHistogram answers with the upper edge of a bucket, which may lie above the largest value in it.
        return min(value / 1e6, self._max)
