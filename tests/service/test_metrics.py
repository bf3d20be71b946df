"""What a scrape can tell of stages."""

from __future__ import annotations

import pytest

from ranking.batching import Figures
from service.figures import SECONDS, Histogram
from service.metrics import Metrics


def test_stages_of_microseconds_are_told_apart() -> None:
    """Most stages of the demo take 10 to 300 us: each decade has buckets of its own."""
    stages = Histogram("endcap_stage_seconds", "x", ["stage"], SECONDS)
    for seconds in (0.00001, 0.00007, 0.0002, 0.0004):
        stages.tallies["rules",].add(seconds)
    found = dict(stages.tallies["rules",].cumulative())
    assert [found[le] for le in ("5e-05", "0.0001", "0.00025", "0.0005")] == [1, 2, 3, 4]


def learned(size: int, fixed_s: float) -> Figures:
    return Figures(size, 2 * size, 0.02, 300.0, fixed_s, 0.001, 1e-6, (1, 2), (fixed_s + 0.0013, fixed_s + 0.0026))


def gauges(metrics: Metrics) -> dict[str, float]:
    lines = [one for one in metrics.text()[0].decode().splitlines() if one.startswith("endcap_engine_curve")]
    return {name: float(value) for name, _, value in (line.partition(" ") for line in lines)}


def test_the_curve_of_batches_is_told_once_it_is_known() -> None:
    metrics = Metrics()
    assert not gauges(metrics)
    metrics.learned = lambda: learned(4, 0.0026)
    assert gauges(metrics) == {
        'endcap_engine_curve_seconds{size="1"}': 0.0039, 'endcap_engine_curve_seconds{size="2"}': 0.0052,
        'endcap_engine_curve_size{kind="worth_having"}': 4.0, 'endcap_engine_curve_size{kind="fastest"}': 8.0,
        'endcap_engine_curve_size{kind="knee"}': 2.0, 'endcap_engine_curve_part_seconds{part="fixed"}': 0.0026,
        'endcap_engine_curve_part_seconds{part="query"}': 0.001, 'endcap_engine_curve_part_seconds{part="row"}': 1e-06,
    }  # fmt: skip


def test_of_several_workers_curves_the_mean_is_told_and_of_what_waits_the_sum() -> None:
    """Two workers with a curve each are not one whose batches take twice as long."""
    asked, other = Metrics(), Metrics()
    for metrics, size, fixed_s in ((asked, 4, 0.002), (other, 8, 0.004)):
        metrics.learned, metrics.waiting = lambda size=size, fixed_s=fixed_s: learned(size, fixed_s), lambda: 3
    asked.others = lambda: [other.snapshot()]
    found = gauges(asked)
    assert found['endcap_engine_curve_size{kind="worth_having"}'] == 6.0
    assert found['endcap_engine_curve_part_seconds{part="fixed"}'] == pytest.approx(0.003)
    assert found['endcap_engine_curve_seconds{size="2"}'] == pytest.approx(0.0056)
    assert "endcap_engine_waiting 6.0" in asked.text()[0].decode()
