"""The deadline of a request, and how its stages share what is left of it.

Every stage's time is followed by a live quantile. The feature read may take what the engine is not expected to need;
the engine is asked as much as fits into what then is left; and what fits is a rung of the ladder (`service.ladder`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

QUANTILE = 0.95
STEP = 0.2
UP, DOWN = 1 + STEP * QUANTILE, 1 - STEP * (1 - QUANTILE)
HALF_LIFE_S = 0.25
"""In which a quantile that nobody feeds goes half of its way back: what was slow once is tried again."""
SLOW_FADE = 0.01
FLOOR_S = 2e-5
TIMER_S = 0.001
"""How late a timer may be: event loops count in milliseconds."""
GRACE_S = 0.005
"""An answer that is later than its deadline by so much is none."""


class Quantile:
    """The upper end of a stage's recent times: up in a few samples, down in many, and back to rest without any.

    A multiplicative stochastic approximation: each sample above it raises it by `STEP * QUANTILE`, each below lowers it
    by `STEP * (1 - QUANTILE)`, which balance at the quantile. Where it rests is twice the long-run mean.
    """

    __slots__ = ("at", "rest", "value")

    def __init__(self, seconds: float = FLOOR_S) -> None:
        self.rest = max(seconds, FLOOR_S)
        self.value, self.at = 2 * self.rest, 0.0

    def now(self, at: float) -> float:
        """Seconds, at `at` of the clock by which samples were added."""
        since = at - self.at
        if since > 0.01 * HALF_LIFE_S:
            return 2 * self.rest + (self.value - 2 * self.rest) * float(0.5 ** (since / HALF_LIFE_S))
        return self.value

    def add(self, seconds: float, at: float) -> None:
        value = self.now(at)
        self.value = max(value * (UP if seconds > value else DOWN), FLOOR_S)
        self.rest = max(self.rest + SLOW_FADE * (min(seconds, 4 * self.rest) - self.rest), FLOOR_S)
        self.at = at


@dataclass(slots=True)
class Budget:
    """The time of one request, in seconds of `time.perf_counter`."""

    began: float
    total_s: float
    clock: Callable[[], float] = time.perf_counter

    @property
    def deadline(self) -> float:
        return self.began + self.total_s

    def left(self) -> float:
        """Seconds; below 0 when the deadline has passed."""
        return self.began + self.total_s - self.clock()


class Shares:
    """What the stages take of late, and from that what each may spend of a request's budget."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.features, self.finish = Quantile(5e-4), Quantile(2e-4)
        self.engine: dict[tuple[str, int], Quantile] = {}

    def learn(self, place: str, rung: int, seconds: float) -> None:
        """What a rung of a placement took when it was warmed up."""
        self.engine[place, rung] = Quantile(seconds)

    def engine_s(self, place: str, rung: int) -> float:
        """What the engine takes for such a query, the queue not counted."""
        found = self.engine.get((place, rung))
        return FLOOR_S if found is None else found.now(self.clock())

    def saw_engine(self, place: str, rung: int, seconds: float) -> None:
        at = self.clock()
        found = self.engine.get((place, rung))
        if found is None:
            found = self.engine[place, rung] = Quantile(seconds)
        found.add(seconds, at)

    def saw_features(self, seconds: float) -> None:
        self.features.add(seconds, self.clock())

    def saw_finish(self, seconds: float) -> None:
        self.finish.add(seconds, self.clock())

    def for_features(self, budget: Budget, place: str, wait_s: float) -> float:
        """Seconds that reading may take: what the engine, at its full effort, leaves, and at least half."""
        left = budget.left() - self.finish.now(self.clock()) - TIMER_S
        return max(left - self.engine_s(place, 0) - wait_s, left / 2)

    def for_engine(self, budget: Budget) -> float:
        """Seconds that the engine may take, the queue before it included."""
        return budget.left() - self.finish.now(self.clock())

    def rung(self, place: str, rungs: int, least: int, budget: Budget, wait_s: float) -> int | None:
        """The first of so many rungs, from `least` on, that fits into what is left; None where none does."""
        room = self.for_engine(budget) - wait_s
        return next((rung for rung in range(least, rungs) if self.engine_s(place, rung) <= room), None)
