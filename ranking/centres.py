"""Where new items stand: the centroid of the learned items of a category, kept up to date change by change."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ranking.native import native
from ranking.room import longer

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

BITS = 61
"""Of the sum of all: a number of a million vectors keeps 41 behind its point."""


class Centres:
    """Centroids of vectors float32[N, E] by their codes int32[N], of `size` categories.

    Sums are whole numbers, of which the order in which changes come is of no account: every worker's are the same.
    """

    def __init__(self, vectors: F32, codes: I32, size: int) -> None:
        most = max(float(vectors.max(initial=0)), -float(vectors.min(initial=0))) or 1.0
        self.unit = 2.0 ** (BITS - math.frexp(most)[1] - len(vectors).bit_length())
        self.sums: I64 = np.zeros((size, vectors.shape[1]), np.int64)
        self.counts: I64 = np.zeros(size, np.int64)
        add(vectors, codes, self.unit, self.sums, self.counts)

    def move(self, vector: F32, before: int, after: int) -> None:
        """Of a vector float32[E] the code is another now."""
        self.make_room(after)
        numbers = np.rint(vector.astype(np.float64) * self.unit).astype(np.int64)
        self.sums[before] -= numbers
        self.counts[before] -= 1
        self.sums[after] += numbers
        self.counts[after] += 1

    def of(self, code: int) -> F32:
        """Of a category's vectors, or of all where it has none: float32[E], of length one."""
        known = code < len(self.counts) and self.counts[code]
        centre = (self.sums[code] if known else self.sums.sum(0)).astype(np.float64)
        found: F32 = (centre / max(float(np.linalg.norm(centre)), 1e-12)).astype(np.float32)
        return found

    def make_room(self, code: int) -> None:
        if (more := code + 1 - len(self.counts)) > 0:
            self.sums, self.counts = longer(self.sums, more, 0), longer(self.counts, more, 0)


@native
def add(vectors: F32, codes: I32, unit: float, sums: I64, counts: I64) -> None:
    for i in range(len(vectors)):
        code = codes[i]
        counts[code] += 1
        for e in range(vectors.shape[1]):
            sums[code, e] += np.int64(np.rint(vectors[i, e] * unit))
