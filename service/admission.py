"""Who comes in: a limit on the requests in flight that finds its own size, and the gate that holds to it.

The limit is an algorithm without a gate, the gate one without an algorithm. Both speak of a request's *share*: the part
of its budget that it spent here, not counting what it waited for the feature store. So a limit knows no milliseconds:
placements with other deadlines go through the same gate.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Protocol

from service.errors import DeadlineExceeded, Overloaded

BULK_UP_TO = 0.7
"""Of the limit: beyond it bulk requests are refused, and only then do interactive ones get less."""

PRICE, MOST_EARNED = 10, 100
"""How many must have been answered within the limit for one to be let in beyond it, and how many count at the most. It
gets what costs next to nothing; but without a bound a spike would leave nobody more than that."""


class Limit(Protocol):
    """How many requests may be in flight."""

    @property
    def size(self) -> float: ...

    def success(self, share: float, in_flight: int, now: float) -> None:
        """One was answered, having spent `share` of its budget while so many were in flight."""
        ...

    def dropped(self, in_flight: int, now: float) -> None:
        """One was not answered in time."""
        ...


class GradientLimit:
    """Shrinks by the ratio of the share that requests may spend to the one they do; grows by half its square root.

    Like Gradient2 of Netflix's concurrency-limits (github.com/Netflix/concurrency-limits), whose gradient is the ratio
    of long-term to present latency: under load that lasts, its baseline drifts up to whatever there is. Ours is what a
    budget allows. It looks at windows, and grows only where it was needed.
    """

    WINDOW_S, WINDOW_SAMPLES, SMOOTHING, HIGH = 0.1, 10, 0.5, 0.9

    def __init__(self, initial: float, *, target: float = 0.4, least: float = 4, most: float = 1000) -> None:
        """`target` is the share of a budget that the slowest tenth may spend."""
        self.target, self.least, self.most = target, least, most
        self._size = min(max(initial, least), most)
        self.shares: list[float] = []
        self.ends, self.used, self.failures = 0.0, 0, 0

    @property
    def size(self) -> float:
        return self._size

    def success(self, share: float, in_flight: int, now: float) -> None:
        self._saw(share, in_flight, now)

    def dropped(self, in_flight: int, now: float) -> None:
        self.failures += 1
        self._saw(1.0, in_flight, now)

    def _saw(self, share: float, in_flight: int, now: float) -> None:
        if not self.shares:
            self.ends = now + self.WINDOW_S
        self.shares.append(share)
        self.used = max(self.used, in_flight)
        if now >= self.ends and len(self.shares) >= self.WINDOW_SAMPLES:
            self._adapt()
            self.shares.clear()
            self.used = self.failures = 0

    def _adapt(self) -> None:
        high = sorted(self.shares)[int(self.HIGH * (len(self.shares) - 1))]
        gradient = min(1.0, max(0.5, self.target / max(high, 1e-6)))
        needed = self.used >= self._size / 2
        if gradient == 1.0 and not needed:
            return
        wanted = self._size * gradient + 0.5 * sqrt(self._size) * (not self.failures)
        size = self._size + self.SMOOTHING * (wanted - self._size)
        self._size = min(max(size, self.least), self.most)


class Admitted:
    """A request that is in until the end of the block. `pressure` is how full the gate was, 0 to 1, above it for one
    that was let in beyond the limit; `elsewhere_s` what it waited for others."""

    __slots__ = ("began", "budget_s", "bulk", "elsewhere_s", "limiter", "pressure")

    @property
    def beyond(self) -> bool:
        return self.pressure > 1.0

    def __init__(self, limiter: Limiter, budget_s: float, pressure: float, bulk: bool) -> None:
        self.limiter, self.budget_s, self.pressure, self.elsewhere_s = limiter, budget_s, pressure, 0.0
        self.began, self.bulk = limiter.clock(), bulk
        if not bulk:
            limiter.seen_at = self.began
        limiter.in_flight += 1
        limiter.bulk_in_flight += bulk

    def __enter__(self) -> Admitted:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        limiter = self.limiter
        now = limiter.clock()
        if kind is None and not self.bulk and not self.beyond:
            limiter.earned = min(limiter.earned + 1, MOST_EARNED)
            limiter.limit.success((now - self.began - self.elsewhere_s) / self.budget_s, limiter.in_flight, now)
        elif kind is not None and issubclass(kind, DeadlineExceeded):
            limiter.limit.dropped(limiter.in_flight, now)
        # Whatever else ended it, a mistake in the request or a client that went away, says nothing of load. Nor does
        # how long a bulk request waited until nobody else did.
        limiter.in_flight -= 1
        limiter.bulk_in_flight -= self.bulk


class Limiter:
    """The gate. For one event loop. `seen_at`: when the last one came that is not bulk."""

    def __init__(self, limit: Limit, clock: Callable[[], float]) -> None:
        self.limit, self.clock = limit, clock
        self.in_flight = self.bulk_in_flight = 0
        self.refused = {"interactive": 0, "bulk": 0}
        self.earned, self.seen_at = 0, float("-inf")

    def full(self) -> bool:
        """Whether nobody would be let in, of whatever priority."""
        return self.earned < PRICE and self.in_flight - self.bulk_in_flight + 1 > self.limit.size

    def room(self, up_to: float) -> bool:
        """Whether one more that is not bulk would leave the gate no fuller than that, 0 to 1."""
        return (self.in_flight - self.bulk_in_flight + 1) / self.limit.size <= up_to

    def room_for_bulk(self) -> bool:
        """Whether one more of many bulk requests would be let in, and keep nobody waiting: beside others that are in
        one at a time goes on."""
        alone = self.in_flight == self.bulk_in_flight or not self.bulk_in_flight
        return alone and (self.in_flight + 1) / self.limit.size <= BULK_UP_TO

    def refuse(self, *, bulk: bool = False) -> Overloaded:
        """Counts one as refused; the error says why."""
        self.refused["bulk" if bulk else "interactive"] += 1
        return Overloaded(f"{self.in_flight} requests are being answered, which is what can be done in time")

    def admit(self, budget_s: float, *, bulk: bool = False) -> Admitted:
        """Lets a request in: `with limiter.admit(…) as admitted`. Raises Overloaded at once where there is no room.

        Bulk requests that are in take no room from others, who go before them. Of those beyond the limit a few are let
        in all the same, by what was earned: better a popular list than none.
        """
        others = 0 if bulk else self.bulk_in_flight
        pressure = (self.in_flight - others + 1) / self.limit.size
        if pressure > 1.0 and not bulk and self.earned >= PRICE:
            self.earned -= PRICE
        elif pressure > (BULK_UP_TO if bulk else 1.0):
            raise self.refuse(bulk=bulk)
        return Admitted(self, budget_s, pressure, bulk)
