"""The batcher learns: one at a time where company does not pay, many where it does, on any device and any arrivals."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from load.schedule import from_rates, poisson
from ranking.batch import Query
from ranking.batching import Curve, Figures, Policy, measure, rows_of
from ranking.forecast import Played, play, play_window

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "request_rate.txt.gz"


def query(rows: int = 500) -> Query:
    return Query(features={}, sources={"personal": rows}, count=20)


def device(
    fixed_ms: float, query_ms: float, row_us: float = 0.0, crowd: float = 0.0
) -> Callable[[Sequence[Query]], float]:
    """`crowd`: by how much each further query of a batch makes all of them slower, as a full cache does."""

    def seconds(queries: Sequence[Query]) -> float:
        rows = sum(map(rows_of, queries))
        alone = fixed_ms * 1e-3 + query_ms * 1e-3 * len(queries) + row_us * 1e-6 * rows
        return alone * (1 + crowd * (len(queries) - 1))

    return seconds


GPU = device(2.0, 0.02)
CPU = device(0.05, 0.6)
CROWDED = device(0.05, 0.6, crowd=0.03)


def learned(seconds: Callable[[Sequence[Query]], float], most: int = 64, slo_s: float = 0.05) -> Policy:
    """A policy after its warm-up on a device."""
    spent = [0.0]

    def run(queries: Sequence[Query]) -> None:
        spent[0] += seconds(queries)

    policy = Policy(Curve(measure(run, query(), most, lambda: spent[0])), most=most, slo_s=slo_s)
    policy.typical = 500.0
    policy.choose()
    return policy


def test_a_batch_is_large_where_the_fixed_cost_is() -> None:
    assert learned(GPU).size == 64


def test_a_batch_is_one_where_company_makes_everybody_slower() -> None:
    assert learned(CROWDED).size == 1


def test_a_batch_stays_small_where_little_is_to_be_had() -> None:
    assert learned(CPU).size <= 4


def test_a_batch_never_takes_more_than_its_share_of_the_slo() -> None:
    policy = learned(device(2.0, 1.0), slo_s=0.03)
    assert device(2.0, 1.0)([query()] * policy.size) <= 0.015
    assert learned(device(100.0, 1.0), slo_s=0.03).size == 1  # it must be answered all the same


def test_rows_are_the_budget_not_requests() -> None:
    """Four queries of 500 candidates, or one of 2,000, or many of 20."""
    policy = learned(device(2.0, 0.01, row_us=2.0), most=64, slo_s=0.02)
    many, few = policy.take([query(20)] * 64), policy.take([query(2000)] * 64)
    usual = policy.take([query(500)] * 64)
    assert many > usual > few >= 1


def test_it_notices_when_the_device_changes() -> None:
    """A neighbour leaves, and what cost a millisecond a query costs a fixed one only, and back."""
    policy = learned(CROWDED)
    arrivals = np.linspace(0.0, 5.0, 12_000)
    play(arrivals, lambda _: query(), GPU, policy)
    assert policy.size >= 16
    play(arrivals, lambda _: query(), CROWDED, policy)
    assert policy.size <= 2


def test_what_was_learned_is_told_in_plain_figures() -> None:
    """The sizes up to the most with the seconds of each, as the device takes them, and where company pays half."""
    found = learned(device(2.0, 0.1, row_us=0.2), most=48).figures()
    assert found.sizes == (1, 2, 4, 8, 16, 32, 48) and found.typical_rows == 500.0
    assert found.seconds == pytest.approx([2e-3 + 2e-4 * size for size in found.sizes], rel=1e-3)
    assert found.knee == pytest.approx(10.0, rel=1e-2) and found.fixed_s == pytest.approx(2e-3, rel=1e-2)
    assert (found.size, found.fastest) == (48, 48) and found.slo_s == 0.05


def test_there_is_no_knee_where_nothing_is_fixed_or_nothing_else_costs() -> None:
    assert learned(CROWDED).figures().knee == 0.0
    flat = Figures(1, 1, 0.02, 0.0, 1e-3, 0.0, 0.0, (1,), (1e-3,))
    assert flat.knee is None


def test_it_is_kept_how_much_was_run_and_by_how_much_it_missed_the_curve() -> None:
    policy = learned(GPU)
    for _ in range(3):
        policy.saw([query()] * 8, 3 * GPU([query()] * 8))
    assert policy.queries == 24 and policy.busy_s == pytest.approx(9 * GPU([query()] * 8))
    assert policy.missed[:4] == pytest.approx([3.0, 3.0, 3.0, 1.0], rel=1e-3)


def test_a_batchs_cpu_is_that_of_its_thread_from_taking_to_the_end_of_each_part() -> None:
    """Two versions answer parts of one batch; what the thread does between two batches is not theirs."""
    spent = [0.0]
    policy = Policy(Curve([(1, 500, 1e-3)]), most=8, slo_s=0.02, cpu=lambda: spent[0])
    for _ in range(2):
        spent[0] += 7.0
        policy.take([query()] * 2)
        for part_s in (0.25, 0.5):
            spent[0] += part_s
            policy.saw([query()], 1e-3)
    assert policy.cpu_s == 1.5


def arrivals_of(kind: str) -> np.ndarray:
    if kind == "poisson":
        return poisson(900.0, 10.0, 1)
    if not RECORDED.exists():
        pytest.skip("needs shared/data/request_rate.txt.gz")
    counts = np.array(gzip.decompress(RECORDED.read_bytes()).split(), int)[3600:4200]
    return from_rates(counts, 1, speed=12.0)  # ten minutes in fifty seconds: about 900 a second, with its bursts


@pytest.mark.parametrize("kind", ["poisson", "recorded"])
@pytest.mark.parametrize("name", ["gpu", "cpu", "crowded"])
@pytest.mark.parametrize("window_ms", [0, 5, 10])
def test_no_fixed_window_answers_sooner_or_more(kind: str, name: str, window_ms: int) -> None:
    """Against windows of the same largest batch: the median, the 99th percentile, and when the last one is answered."""
    seconds = {"gpu": GPU, "cpu": CPU, "crowded": CROWDED}[name]
    arrivals = arrivals_of(kind)
    ours = play(arrivals, lambda _: query(), seconds, learned(seconds))
    theirs: Played = play_window(arrivals, lambda _: query(), seconds, 64, window_ms * 1e-3)
    for q in (0.5, 0.99):
        assert ours.quantile(q) <= theirs.quantile(q) * 1.02, (q, ours.quantile(q), theirs.quantile(q))
    assert ours.end <= theirs.end + 0.01  # no less gets done: what is left at the end is one batch at the most


def test_every_query_is_answered_once_and_in_order() -> None:
    arrivals = poisson(2_000.0, 2.0, 3)
    played = play(arrivals, lambda number: query(20 + number % 7 * 300), device(1.0, 0.1, 0.5), learned(GPU))
    assert sum(played.sizes) == len(arrivals)
    ended = arrivals + played.latencies
    assert (np.diff(ended) >= -1e-12).all() and (played.latencies > 0).all()


def test_no_part_of_a_batch_takes_less_for_being_more() -> None:
    """Many rows that no ranker sees beside few that one does: rows alone would look like a saving."""
    curve = Curve()
    for size in (1, 2, 4, 8) * 16:
        curve.saw((size, 500 * size, 0.0001 + 0.00005 * size))
        curve.saw((size, 300 * size, 0.0003 + 0.0005 * size))
    assert (curve.coefficients >= 0).all()
    assert curve.seconds(1, 2000) >= curve.seconds(1, 20) and curve.seconds(8, 2400) > curve.seconds(1, 300) > 0
