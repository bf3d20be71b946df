"""The deadline of a request, and how its stages share what is left of it.

Every stage's time is followed by a live quantile. The feature read may take what the engine is not expected to need;
the engine is asked as much as fits into what then is left; and what fits is a rung of the ladder (`service.ladder`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

QUANTILE = 0.95
STEP = 0.2
UP, DOWN = 1 + STEP * QUANTILE, 1 - STEP * (1 - QUANTILE)
HALF_LIFE_S = 0.25
"""In which a quantile that nobody feeds goes half of its way back to what is usual."""
FORGET_S = 5.0
"""In which what is usual counts half, where nobody feeds it: what is thought too slow is tried again."""
USUAL_UP, USUAL_DOWN = 1 + 0.02 * 0.25, 1 - 0.02 * 0.75
FLOOR_S = 2e-5
NEAR_S = 0.01 * HALF_LIFE_S
"""In which nothing of that is worth a computation."""
TURNS = 4
"""Turns of the loop that a read takes at the most, of its slower ones."""
TIMER_S = 0.001
"""How late a timer may be: event loops count in milliseconds."""
GRACE_S = 0.005
"""An answer that is later than its deadline by so much is none."""


class Quantile:
    """The upper end of a stage's recent times: up in a few samples, down in many, and back to rest without any.

    A multiplicative stochastic approximation: each sample above it raises it by `STEP * QUANTILE`, each below lowers it
    by `STEP * (1 - QUANTILE)`, which balance at the quantile. What is usual is the lower quartile, by the same means.
    """

    __slots__ = ("at", "usual", "value")

    def __init__(self, seconds: float = FLOOR_S, at: float = 0.0) -> None:
        self.usual = max(seconds, FLOOR_S)
        self.value, self.at = 2 * self.usual, at

    def now(self, at: float) -> float:
        """Seconds, at `at` of the clock by which samples were added."""
        since = at - self.at
        if since < NEAR_S:
            return self.value
        rest = 2 * self.usual
        return (rest + (self.value - rest) * float(0.5 ** (since / HALF_LIFE_S))) * float(0.5 ** (since / FORGET_S))

    def add(self, seconds: float, at: float, *, ended: bool = True) -> None:
        """`ended`: whether it took so long, and was not given up after so long."""
        value = self.now(at)
        value *= UP if seconds > value else DOWN
        self.value = value if value > FLOOR_S else FLOOR_S
        if ended:
            usual = self.usual * (USUAL_UP if seconds > self.usual else USUAL_DOWN)
            self.usual = usual if usual > FLOOR_S else FLOOR_S
        self.at = at


class Budget:
    """The time of one request, in seconds of `clock`."""

    __slots__ = ("clock", "deadline", "total_s")

    def __init__(self, began: float, total_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.deadline, self.total_s, self.clock = began + total_s, total_s, clock

    def left(self) -> float:
        """Seconds; below 0 when the deadline has passed."""
        return self.deadline - self.clock()


class Shares:
    """What the stages take of late, and from that what each may spend of a request's budget."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.features, self.finish = Quantile(5e-4), Quantile(2e-4)
        self.turn = Quantile(5e-5)  # of the event loop
        self.turn_began: float | None = None
        self.engine: dict[tuple[str, int], Quantile] = {}

    def learn(self, place: str, rung: int, seconds: float) -> None:
        """What a rung of a placement took when it was warmed up."""
        self.engine[place, rung] = Quantile(seconds, self.clock())

    def engine_s(self, place: str, rung: int, at: float) -> float:
        """What the engine takes for such a query, the queue not counted."""
        found = self.engine.get((place, rung))
        return FLOOR_S if found is None else found.now(at)

    def saw_engine(self, place: str, rung: int, seconds: float, *, ended: bool = True) -> None:
        at = self.clock()
        found = self.engine.get((place, rung))
        if found is None:
            found = self.engine[place, rung] = Quantile(seconds, at)
        found.add(seconds, at, ended=ended)

    def saw_features(self, seconds: float) -> None:
        self.features.add(seconds, self.clock())

    def saw_finish(self, seconds: float) -> None:
        self.finish.add(seconds, self.clock())

    def time_turn(self) -> None:
        """Has the loop's turn from now to its callbacks timed; once, however many ask for it in one turn."""
        if self.turn_began is None:
            self.turn_began = self.clock()
            asyncio.get_running_loop().call_soon(self.saw_turn)

    def saw_turn(self) -> None:
        if self.turn_began is not None:
            now = self.clock()
            self.turn.add(now - self.turn_began, now)
            self.turn_began = None

    def store_s(self, seconds: float) -> float:
        """How much of the time that a read took was the store's: what the loop needs to come round is ours."""
        return max(0.0, seconds - TURNS * self.turn.now(self.clock()))

    def for_features(self, budget: Budget, place: str, wait_s: float) -> float:
        """Seconds that reading may take: what the engine, at its full effort, leaves, and at least half."""
        now = self.clock()
        left = budget.deadline - now - self.finish.now(now) - TIMER_S
        return max(left - self.engine_s(place, 0, now) - wait_s, left / 2)

    def for_engine(self, budget: Budget) -> float:
        """Seconds that the engine may take, the queue before it included."""
        now = self.clock()
        return budget.deadline - now - self.finish.now(now)

    def rung(self, place: str, rungs: int, least: int, budget: Budget, wait_s: float) -> int | None:
        """The first of so many rungs, from `least` on, that fits into what is left; None where none does."""
        now = self.clock()
        room = budget.deadline - now - self.finish.now(now) - wait_s
        for rung in range(least, rungs):
            if self.engine_s(place, rung, now) <= room:
                return rung
        return None
