"""The limit in virtual time before a server that can do so much, and the gate before requests of every kind."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from service.admission import GradientLimit, Limiter
from service.errors import DeadlineExceeded, Overloaded

BUDGET_S, SERVICE_S = 0.050, 0.002


@dataclass
class Played:
    """When each admitted request came and what it took, and when others were refused; seconds."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def in_time(self, start: float, end: float) -> int:
        return sum(start <= at < end and took <= BUDGET_S for at, took in self.answered)

    def quantile(self, q: float, start: float, end: float) -> float:
        return float(np.quantile([took for at, took in self.answered if start <= at < end], q))


def play(arrivals: np.ndarray, service_s: Callable[[float], float], initial: float) -> tuple[Played, Limiter]:
    """One server, first come first served, behind the gate."""
    now = 0.0
    limiter = Limiter(GradientLimit(initial), lambda: now)
    played, idle_at, leaving = Played(), 0.0, list[tuple[float, int, float, object]]()

    def leave(until: float) -> None:
        nonlocal now
        while leaving and leaving[0][0] <= until:
            now, _, came, block = heapq.heappop(leaving)
            block.__exit__(None, None, None)  # type: ignore[attr-defined]
            played.answered.append((came, now - came))

    for number, at in enumerate(arrivals):
        leave(at)
        now = at
        try:
            block = limiter.admit(BUDGET_S)
        except Overloaded:
            played.refused.append(at)
            continue
        idle_at = max(idle_at, at) + service_s(at)
        heapq.heappush(leaving, (idle_at, number, at, block))
    leave(float("inf"))
    return played, limiter


def poisson(*parts: tuple[float, float]) -> np.ndarray:
    rng, start, found = np.random.default_rng(0), 0.0, []
    for rate, seconds in parts:
        found.append(np.sort(rng.uniform(start, start + seconds, rng.poisson(rate * seconds))))
        start += seconds
    return np.concatenate(found)


@pytest.mark.parametrize("initial", [4, 16, 400])
def test_at_twice_the_capacity_nine_tenths_of_it_are_answered_in_time(initial: float) -> None:
    """Wherever the limit began; and of those let in 99 of 100 are in time."""
    played, _ = play(poisson((2 / SERVICE_S, 12.0)), lambda at: SERVICE_S, initial)
    assert played.in_time(2, 12) >= 0.9 * 10 / SERVICE_S
    assert played.quantile(0.99, 2, 12) <= BUDGET_S
    assert len(played.refused) > 0.4 * 12 / SERVICE_S


def test_two_seconds_after_a_spike_of_ten_times_the_load_all_is_as_before() -> None:
    calm = 0.5 / SERVICE_S
    played, _ = play(poisson((calm, 5.0), (10 * calm, 2.0), (calm, 8.0)), lambda at: SERVICE_S, 16)
    assert played.quantile(0.99, 9, 15) <= 1.5 * played.quantile(0.99, 0, 5)
    assert not [at for at in played.refused if at < 5 or at >= 9]


def test_a_server_that_becomes_slower_is_given_less_and_then_more_again() -> None:
    """A third of the speed for ten seconds: in time all the while but for the first, and the limit grows back."""
    rate = 0.9 / SERVICE_S
    played, limiter = play(poisson((rate, 30.0)), lambda at: SERVICE_S * (3 if 10 <= at < 20 else 1), 16)
    assert played.quantile(0.99, 11, 20) <= BUDGET_S
    assert len([at for at in played.refused if at >= 22]) < 0.01 * rate * 8
    assert limiter.limit.size >= 8 and limiter.in_flight == 0


def test_a_limit_that_is_not_needed_does_not_grow() -> None:
    _, limiter = play(poisson((0.1 / SERVICE_S, 20.0)), lambda at: SERVICE_S, 16)
    assert limiter.limit.size == 16


class Fixed:
    """A limit that learns nothing, and tells what it was told."""

    def __init__(self, size: float) -> None:
        self.size, self.told = size, list[tuple[str, float]]()

    def success(self, share: float, in_flight: int, now: float) -> None:
        self.told.append(("success", share))

    def dropped(self, in_flight: int, now: float) -> None:
        self.told.append(("dropped", 1.0))


def test_a_tenth_as_many_as_were_answered_are_let_in_beyond_the_limit() -> None:
    """Ten at once at the most, none of them bulk, and what they take says nothing of the limit."""
    limit = Fixed(1)
    limiter = Limiter(limit, lambda: 0.0)
    for _ in range(9):
        with limiter.admit(1.0):
            pass
    with limiter.admit(1.0):
        assert limiter.full()
    with limiter.admit(1.0):
        assert not limiter.full()
        with pytest.raises(Overloaded), limiter.admit(1.0, bulk=True):
            pass
        with limiter.admit(1.0) as beyond:
            assert beyond.beyond and limiter.full()
            with pytest.raises(Overloaded), limiter.admit(1.0):
                pass
    assert len(limit.told) == 11
    for _ in range(1000):
        with limiter.admit(1.0):
            pass
    with limiter.admit(1.0):
        others = [limiter.admit(1.0) for _ in range(10)]
        assert limiter.full() and all(one.beyond for one in others)


def test_beyond_the_limit_requests_are_refused_and_those_that_leave_make_room() -> None:
    limiter = Limiter(Fixed(2), lambda: 0.0)
    with limiter.admit(1.0) as first, limiter.admit(1.0) as second:
        assert (first.pressure, second.pressure) == (0.5, 1.0)
        assert limiter.full()
        with pytest.raises(Overloaded, match="2 requests"), limiter.admit(1.0):
            pass
    assert limiter.in_flight == 0 and limiter.refused == {"interactive": 1, "bulk": 0}


def test_bulk_requests_are_refused_first() -> None:
    limiter = Limiter(Fixed(10), lambda: 0.0)
    inside = [limiter.admit(1.0) for _ in range(7)]
    with pytest.raises(Overloaded), limiter.admit(1.0, bulk=True):
        pass
    with limiter.admit(1.0):
        assert limiter.refused == {"interactive": 0, "bulk": 1}
    for one in inside:
        one.__exit__(None, None, None)


def test_bulk_requests_that_are_in_take_no_room_from_others_and_say_nothing_to_the_limit() -> None:
    limit = Fixed(4)
    limiter = Limiter(limit, lambda: 0.0)
    with limiter.admit(1.0, bulk=True), limiter.admit(1.0, bulk=True):
        assert limiter.admit(1.0).pressure == 0.25
        with pytest.raises(Overloaded), limiter.admit(1.0, bulk=True):
            pass
    assert not limit.told


@pytest.mark.parametrize(
    ("error", "told"),
    [(None, [("success", 0.3)]), (DeadlineExceeded("late"), [("dropped", 1.0)]), (ValueError("mistake"), []),
     (asyncio.CancelledError(), [])],
)  # fmt: skip
def test_only_what_says_something_of_load_reaches_the_limit(
    error: BaseException | None, told: list[tuple[str, float]]
) -> None:
    """What was waited for elsewhere is no load of ours, nor a request with mistakes, nor a client that went away."""
    clock, limit = [0.0], Fixed(10)
    limiter = Limiter(limit, lambda: clock[0])

    def run() -> None:
        with limiter.admit(0.1) as admitted:
            clock[0], admitted.elsewhere_s = 0.05, 0.02
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(type(error)):
            run()
    assert [(kind, pytest.approx(share)) for kind, share in limit.told] == told
    assert limiter.in_flight == 0


def test_of_many_bulk_requests_one_at_a_time_goes_on_beside_others() -> None:
    limiter = Limiter(GradientLimit(100), lambda: 0.0)
    with limiter.admit(1.0, bulk=True):
        assert limiter.room_for_bulk()
        with limiter.admit(1.0):
            assert not limiter.room_for_bulk()
        assert limiter.room_for_bulk()
    with limiter.admit(1.0):
        assert limiter.room_for_bulk()
    limiter.in_flight = limiter.bulk_in_flight = 70
    assert not limiter.room_for_bulk()
