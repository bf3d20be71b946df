from __future__ import annotations

import numpy as np
import pytest

from load.errors import LoadError
from load.schedule import constant, from_rates, poisson


def test_a_seed_gives_one_schedule_and_another_seed_another() -> None:
    assert np.array_equal(poisson(100, 10, 7), poisson(100, 10, 7))
    assert not np.array_equal(poisson(100, 10, 7)[:50], poisson(100, 10, 8)[:50])
    counts = np.array([5, 0, 9])
    assert np.array_equal(from_rates(counts, 7), from_rates(counts, 7))
    assert not np.array_equal(from_rates(counts, 7), from_rates(counts, 8))


def test_poisson_arrivals_have_the_mean_and_the_variance_of_a_poisson_process() -> None:
    """Counts per second have variance = mean = rate; gaps are exponential, so their deviation equals their mean."""
    rate, seconds = 50, 2000
    times = poisson(rate, seconds, seed=3)
    counts = np.bincount(times.astype(int), minlength=seconds)
    assert counts.mean() == pytest.approx(rate, rel=0.02)
    assert counts.var() == pytest.approx(rate, rel=0.15)
    gaps = np.diff(times)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)


def test_every_schedule_is_sorted_float64_and_inside_its_duration() -> None:
    for times, end in ((poisson(300, 2, 1), 2.0), (constant(300, 2), 2.0), (from_rates(np.array([9, 3]), 1), 2.0)):
        assert times.dtype == np.float64
        assert (np.diff(times) >= 0).all()
        assert times[0] >= 0
        assert times[-1] < end


def test_constant_arrivals_are_evenly_spaced_from_zero() -> None:
    assert constant(4, 1).tolist() == [0.0, 0.25, 0.5, 0.75]
    assert len(constant(3, 1 / 3)) == 1
    assert len(constant(0.5, 3)) == 2


def test_recorded_rates_are_kept_second_by_second_and_speed_shortens_the_seconds() -> None:
    counts = np.array([3, 0, 100, 1])
    assert np.bincount(from_rates(counts, 1).astype(int), minlength=4).tolist() == counts.tolist()
    assert np.allclose(from_rates(counts, 1, speed=4), from_rates(counts, 1) / 4)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_not_a_number_above_zero_is_refused(rate: float) -> None:
    with pytest.raises(LoadError, match="rate"):
        poisson(rate, 1, 1)
    with pytest.raises(LoadError, match="rate"):
        constant(rate, 1)
    with pytest.raises(LoadError, match="duration"):
        poisson(1, rate, 1)


def test_recorded_rates_that_are_no_counts_are_refused_with_their_row() -> None:
    with pytest.raises(LoadError, match="row 2: -4"):
        from_rates(np.array([1, -4]), 1)
    with pytest.raises(LoadError, match="float64"):
        from_rates(np.array([1.5]), 1)
