"""What to expect of the engine at a rate of queries, and up to which rate it keeps its SLO: the live curve, played.

Queries come one by one and independent of each other (a Poisson process of a fixed seed) and are all typical ones. A
batch takes what the curve says times a factor drawn from those by which the last batches missed it: so the device's own
unrest is in the forecast, and with it a good part of the 99th percentile.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ranking.batch import Query
from ranking.batching import EXPLORE, Policy
from ranking.forecast import Played, play

ARRIVALS, SEED = 10_000, 1
SETTLE = 0.1
"""Share of the arrivals that are let pass before latencies count: the queue is empty at first."""
NEARER = 8
"""How often the span in which the capacity lies is halved."""
LEAST_S = 1e-6
"""No batch is taken for quicker than this: a curve may say 0 where its samples contradict each other."""
FULL = 0.95
"""Share of the most that gets done beyond which a burst is felt for longer than is played: no capacity is more."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds from a query's arrival to its answer at a rate of queries/s; None where more come than get done."""

    rate: float
    p50_s: float | None
    p99_s: float | None


class Settled:
    """A policy that takes as the given one does and learns nothing, for queries that are all alike."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.batches = policy, 0
        self.known: dict[tuple[int, bool], int] = {}

    def take(self, waiting: Collection[Query]) -> int:
        self.batches += 1
        key = (len(waiting), self.batches % EXPLORE == 0)
        if key not in self.known:
            self.policy.batches = self.batches - 1
            self.known[key] = self.policy.take(waiting)
        return self.known[key]

    def saw(self, queries: Sequence[Query], seconds: float) -> None:
        pass


class Forecaster:
    """Forecasts for a policy as it is when this is made.

    `loop_s`: seconds of the event loop that go to each query besides (HTTP, features, JSON). They bound the rate where
    the engine has its `own_core`, and delay batches where it has none.
    """

    def __init__(
        self, policy: Policy, *, loop_s: float = 0.0, own_core: bool = True, arrivals: int = ARRIVALS, seed: int = SEED
    ) -> None:
        self.policy, self.loop_s, self.own_core = policy.settled(), loop_s, own_core
        rows = int(self.policy.typical)
        self.query = Query(features={}, sources={"typical": rows}, count=1)
        self.table = [max(self.policy.curve.seconds(size, size * rows), LEAST_S) for size in range(1, policy.most + 1)]
        random = np.random.default_rng(seed)
        self.missed = policy.missed.copy()
        self.unrest = random.choice(self.missed, size=arrivals).tolist()
        self.times = np.cumsum(random.exponential(1.0, arrivals))

    @property
    def most_rate(self) -> float:
        """Queries/s beyond which the queue grows for as long as they come."""
        size = self.policy.fastest
        a_query = self.table[size - 1] * float(self.missed.mean()) / size
        return 1 / (max(a_query, self.loop_s) if self.own_core else a_query + self.loop_s)

    def play(self, rate: float) -> Played:
        unrest = iter(self.unrest)

        def seconds(queries: Sequence[Query]) -> float:
            return float(self.table[len(queries) - 1] * next(unrest))

        beside_s = 0.0 if self.own_core else self.loop_s
        return play(self.times / rate, lambda _: self.query, seconds, Settled(self.policy), beside_s)

    def at(self, rate: float) -> Expected:
        """`rate` is above 0 queries/s."""
        if rate >= self.most_rate:
            return Expected(rate, None, None)
        found = self.play(rate).latencies[int(SETTLE * len(self.times)) :]
        return Expected(rate, float(np.quantile(found, 0.5)), float(np.quantile(found, 0.99)))

    def capacity(self) -> float | None:
        """The rate in queries/s up to which 99 of 100 are answered within the policy's SLO; None where none is."""
        low, high = 0.0, FULL * self.most_rate
        if self.keeps(high):
            return high
        for _ in range(NEARER):
            middle = (low + high) / 2
            low, high = (middle, high) if self.keeps(middle) else (low, middle)
        return low or None

    def keeps(self, rate: float) -> bool:
        p99_s = self.at(rate).p99_s
        return p99_s is not None and p99_s <= self.policy.slo_s
