from __future__ import annotations

from collections.abc import Callable

import pytest

from load.search import CLOSE, Found, Verdict, search


def server(capacity: float, client: float = float("inf")) -> tuple[list[float], Callable[[float], Verdict]]:
    rates: list[float] = []

    def step(rate: float) -> Verdict:
        rates.append(rate)
        if rate <= min(capacity, client):
            return Verdict.MET
        return Verdict.LATE if rate > client else Verdict.MISSED

    return rates, step


@pytest.mark.parametrize("capacity", [3.0, 47.0, 100.0, 730.0, 12_345.0])
@pytest.mark.parametrize("start", [1.0, 40.0, 5000.0])
def test_the_highest_rate_that_meets_the_slo_is_found_within_a_twentieth(capacity: float, start: float) -> None:
    rates, step = server(capacity)
    found = search(step, start, None, None)
    assert found.rate is not None and found.ceiling is not None
    assert found.rate <= capacity < found.ceiling <= found.rate * CLOSE
    assert len(rates) < 25


def test_bounds_are_kept() -> None:
    rates, step = server(730.0)
    assert search(step, 50.0, 100.0, 400.0) == Found(400.0, None, None)
    assert rates == [100.0, 200.0, 400.0]
    rates, step = server(730.0)
    assert search(step, 5000.0, None, 400.0) == Found(400.0, None, None)
    assert rates == [400.0]


def test_where_even_the_lowest_rate_misses_there_is_none() -> None:
    rates, step = server(50.0)
    assert search(step, 1.0, 100.0, 400.0) == Found(None, 100.0, Verdict.MISSED)
    assert rates == [100.0]
    rates, step = server(0.0)
    assert search(step, 8.0, None, None) == Found(None, 1.0, Verdict.MISSED)
    assert rates == [8.0, 4.0, 2.0, 1.0]


def test_a_client_that_cannot_keep_a_rate_is_a_ceiling_that_says_so() -> None:
    _, step = server(2000.0, client=700.0)
    found = search(step, 100.0, None, None)
    assert found.rate is not None
    assert 700 / CLOSE <= found.rate <= 700
    assert found.why is Verdict.LATE
