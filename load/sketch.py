"""Quantiles of any number of positive numbers in little memory: buckets whose edges grow by 2 % (as DDSketch has it).

DDSketch: Masson, Rim and Lee, VLDB 2019. An HdrHistogram wants a lowest and a highest value; scores of models have
neither.
"""

from __future__ import annotations

import math
from collections import Counter

GROWTH = 1.02


class Sketch:
    """Numbers from 0. Quantiles are within 1 % of a number that was added; the mean is exact."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._zeros = self._count = 0
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Add a finite number from 0; ValueError for any other."""
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{value} is not a finite number from 0")
        self._count += 1
        self._sum += value
        if value > 0:
            self._buckets[math.ceil(math.log(value, GROWTH))] += 1
        else:
            self._zeros += 1

    def mean(self) -> float | None:
        """Arithmetic mean; None of nothing."""
        return self._sum / self._count if self._count else None

    def quantile(self, share: float) -> float | None:
        """The number that `share` (above 0, up to 1) of all do not exceed; None of nothing."""
        if not self._count:
            return None
        left = math.ceil(share * self._count) - self._zeros
        for bucket in sorted(self._buckets):
            if left <= 0:
                break
            left -= self._buckets[bucket]
            if left <= 0:
                return 2 * GROWTH**bucket / (GROWTH + 1)
        return 0.0
