"""Forecasts of the engine, against queues whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from ranking.batch import Query
from ranking.batching import Curve, Policy
from ranking.capacity import FULL, Forecaster, Settled
from ranking.forecast import play
from tests.ranking.test_batching import CPU, GPU, learned, query


def one_at_a_time(seconds: float, slo_s: float = 1.0) -> Policy:
    return Policy(Curve([(1, 1, seconds)]), most=1, slo_s=slo_s, typical=1.0)


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_a_queue_of_equal_services_waits_as_long_as_theory_says(busy: float) -> None:
    """M/D/1 waits busy / (2 (1 - busy)) services on average (Pollaczek and Khinchine)."""
    service_s = 2e-3
    played = Forecaster(one_at_a_time(service_s), arrivals=200_000).play(busy / service_s)
    assert played.latencies.mean() - service_s == pytest.approx(service_s * busy / (2 * (1 - busy)), rel=0.05)


def test_the_unrest_of_the_device_is_in_the_forecast() -> None:
    """M/G/1: the wait grows by the mean square of a service; and of a lone query's time p99 is that of the device."""
    policy = one_at_a_time(1e-3)
    policy.missed[:] = np.where(np.arange(len(policy.missed)) % 4, 0.5, 2.5)  # mean 1, mean square 1.75
    played = Forecaster(policy, arrivals=200_000).play(500.0)
    assert played.latencies.mean() == pytest.approx(1e-3 + 1e-3 * 0.5 * 1.75 / (2 * (1 - 0.5)), rel=0.05)
    alone = Forecaster(policy).at(0.1)
    assert (alone.p50_s, alone.p99_s) == (pytest.approx(0.5e-3), pytest.approx(2.5e-3))


def test_what_the_core_does_besides_is_waited_for_by_others_only() -> None:
    """At 500/s a millisecond besides each query of a millisecond leaves the core busy all the time."""
    alone, beside = (Forecaster(one_at_a_time(1e-3), loop_s=each, own_core=False) for each in (0.0, 1e-3))
    assert beside.most_rate == pytest.approx(500.0) and alone.most_rate == pytest.approx(1000.0)
    assert beside.at(0.1).p50_s == pytest.approx(1e-3)
    p99_s, p99_alone_s = beside.at(400.0).p99_s, alone.at(400.0).p99_s
    assert p99_s is not None and p99_alone_s is not None and p99_s > 2 * p99_alone_s


def test_beside_a_core_of_the_engines_own_the_loop_delays_no_batch_but_bounds_the_rate() -> None:
    alone, beside = (Forecaster(one_at_a_time(1e-3), loop_s=each) for each in (0.0, 2e-3))
    assert beside.at(400.0) == alone.at(400.0)
    assert beside.most_rate == pytest.approx(500.0) and beside.at(501.0).p99_s is None
    assert beside.capacity() == pytest.approx(FULL * 500.0)


def test_up_to_the_capacity_the_slo_is_kept_and_beyond_it_is_not() -> None:
    forecaster = Forecaster(learned(CPU, slo_s=0.01))
    capacity = forecaster.capacity()
    assert capacity is not None and 0.5 * forecaster.most_rate < capacity < FULL * forecaster.most_rate
    below, beyond = forecaster.at(capacity).p99_s, forecaster.at(1.02 * capacity).p99_s
    assert below is not None and beyond is not None and below <= 0.01 < beyond


def test_no_capacity_is_near_what_just_gets_done_and_there_is_none_where_one_query_is_too_slow() -> None:
    easy = Forecaster(learned(GPU, slo_s=5.0))
    assert easy.capacity() == pytest.approx(FULL * easy.most_rate)
    assert Forecaster(one_at_a_time(0.03, slo_s=0.02)).capacity() is None


def test_more_than_gets_done_has_no_forecast() -> None:
    found = Forecaster(one_at_a_time(1e-3)).at(1001.0)
    assert (found.rate, found.p50_s, found.p99_s) == (1001.0, None, None)


def test_a_forecast_takes_as_the_policy_does_and_teaches_it_nothing() -> None:
    """Also when many wait and where once in a while more is taken than is worth having."""
    policy = learned(CPU)
    settled, same = Settled(policy.settled()), policy.settled()
    for waiting in [1, 3, 9, 40, 200] * 20:
        queries: list[Query] = [query()] * waiting
        assert settled.take(queries) == same.take(queries)
    before, batches = policy.curve.coefficients.copy(), policy.batches
    play(np.linspace(0.0, 1.0, 2_000), lambda _: query(), GPU, Settled(policy.settled()))
    Forecaster(policy).capacity()
    assert (policy.curve.coefficients == before).all() and policy.batches == batches and policy.queries == 0
