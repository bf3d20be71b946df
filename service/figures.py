"""Figures that grow with every request: plain integers and lists, counted on the event loop without a lock."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

SECONDS = (
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.1,
    0.25,
    1.0,
)
AGES = (1, 10, 60, 300, 900, 3600, 4 * 3600, 86400, 3 * 86400, 7 * 86400, 30 * 86400, 365 * 86400)
FINE = tuple(5e-5 * 2 ** (step / 8) for step in range(129))
"""From 0.05 ms to 3.3 s, eight to a doubling: where a quantile is to be told closer than by SECONDS."""
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Counts:
    """A counter: label values -> how often."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self.name, self.text, self.labels = name, text, labels
        self.values: Counter[tuple[str, ...]] = Counter()


class Tally:
    """One histogram's figures: how many fell into each bucket, and their sum."""

    __slots__ = ("bounds", "buckets", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """The buckets as Prometheus counts them: each holds all the smaller ones."""
        found, total = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.buckets, strict=True):
            total += count
            found.append(("+Inf" if bound == float("inf") else repr(float(bound)), float(total)))
        return found


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float:
    """Of a tally's figures, of which there are some: interpolated inside its bucket; past the last bound that bound."""
    wanted, below, lower = q * sum(counts), 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below, lower = below + count, bound
    return lower


class Histogram:
    """A histogram: label values -> tally."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name, self.text, self.labels = name, text, labels
        self.tallies: defaultdict[tuple[str, ...], Tally] = defaultdict(lambda: Tally(bounds))
