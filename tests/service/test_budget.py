"""Live quantiles, and what a stage may spend of a budget by them. A clock that the test turns."""

from __future__ import annotations

import numpy as np
import pytest

from service.budget import Budget, Quantile, Shares


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fed(seconds: list[float], every: float = 0.001) -> tuple[Quantile, float]:
    one, at = Quantile(0.001), 0.0
    for sample in seconds:
        at += every
        one.add(sample, at)
    return one, at


def test_a_quantile_stands_where_one_sample_in_twenty_is_above() -> None:
    samples = np.random.default_rng(0).exponential(0.01, 20_000)
    one, at, above = Quantile(0.001), 0.0, 0
    for number, sample in enumerate(samples):
        at += 0.001
        above += number >= 1000 and sample > one.now(at)
        one.add(sample, at)
    assert 0.03 < above / (len(samples) - 1000) < 0.07


def test_a_quantile_is_up_within_a_few_dozen_slow_samples() -> None:
    one, at = fed([0.001] * 1000 + [0.05] * 30)
    assert one.now(at) > 0.05


def test_a_quantile_that_nobody_feeds_goes_back_to_what_is_usual_and_then_counts_for_less() -> None:
    """Or what was slow in a spike would never be tried again."""
    one, at = fed([0.001] * 1000 + [0.05] * 30)
    assert one.now(at + 2.0) < 0.004
    assert one.now(at + 60.0) < 0.0001


def test_what_was_given_up_says_nothing_of_what_is_usual() -> None:
    one, at = fed([0.001] * 1000)
    for _ in range(1000):
        at += 0.001
        one.add(0.05, at, ended=False)
    assert one.now(at) > 0.04 and one.now(at + 2.0) < 0.004


@pytest.fixture
def clock() -> Clock:
    return Clock()


def learned(clock: Clock) -> Shares:
    """An engine that takes 10 ms for everything, 4 with less and 1 with the least (twice what was measured)."""
    shares = Shares(clock)
    for rung, seconds in enumerate((0.005, 0.002, 0.0005)):
        shares.learn("home", rung, seconds)
    return shares


def test_reading_may_take_what_the_engine_leaves_and_at_least_half(clock: Clock) -> None:
    shares, budget = learned(clock), Budget(clock.now, 0.05, clock)
    assert 0.035 < shares.for_features(budget, "home", 0.0) < 0.04
    assert shares.for_features(budget, "home", 0.030) == pytest.approx(0.05 / 2, abs=0.002)
    clock.now += 0.046
    assert shares.for_features(budget, "home", 0.0) < 0.002


@pytest.mark.parametrize(
    ("left", "wait", "least", "rung"),
    [(0.05, 0.0, 0, 0), (0.008, 0.0, 0, 1), (0.05, 0.045, 0, 1), (0.003, 0.0, 0, 2), (0.05, 0.0, 2, 2),
     (0.0005, 0.0, 0, None), (0.05, 0.06, 0, None)],
)  # fmt: skip
def test_the_first_rung_that_fits_is_taken(
    clock: Clock, left: float, wait: float, least: int, rung: int | None
) -> None:
    budget = Budget(clock.now - 0.05 + left, 0.05, clock)
    assert learned(clock).rung("home", 3, least, budget, wait) == rung


def test_the_stores_time_is_what_the_loop_did_not_need_itself(clock: Clock) -> None:
    shares = Shares(clock)
    assert shares.store_s(0.030) > 0.029
    for _ in range(200):
        clock.now += 0.01
        shares.turn_began = clock.now - 0.010  # a loop that needs 10 ms to come round
        shares.saw_turn()
    assert shares.store_s(0.030) == 0.0
