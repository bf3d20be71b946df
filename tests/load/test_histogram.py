from __future__ import annotations

import pickle

import numpy as np
import pytest

from load.histogram import HIGHEST_S, Durations


def test_percentiles_agree_with_sorting_to_three_digits() -> None:
    values = np.random.default_rng(1).lognormal(-5, 1, 20_000)
    durations = Durations()
    for value in values:
        durations.record(float(value))
    for percent in (50, 90, 99, 99.9):
        exact = float(np.sort(values)[round(percent / 100 * len(values)) - 1])
        assert durations.percentile(percent) == pytest.approx(exact, rel=0.002, abs=1e-6)
    assert durations.count == 20_000
    assert durations.mean() == pytest.approx(values.mean())
    assert durations.max() == values.max()


def test_of_few_durations_a_high_percentile_is_the_largest() -> None:
    """99 of 100 do not exceed p99, and of 60 durations 59 are not enough for that."""
    durations = Durations()
    for ms in range(1, 61):
        durations.record(ms / 1000)
    assert durations.percentile(99) == 0.06
    assert durations.percentile(50) == pytest.approx(0.03, rel=0.002)


def test_no_percentile_exceeds_the_largest_duration() -> None:
    durations = Durations()
    durations.record(0.1000001)
    assert durations.percentile(99) == durations.max() == 0.1000001


def test_an_empty_histogram_has_no_figures_rather_than_zeros() -> None:
    durations = Durations()
    assert (durations.count, durations.mean(), durations.max(), durations.percentile(99)) == (0, None, None, None)


def test_more_than_a_day_counts_as_a_day_and_below_zero_is_refused() -> None:
    durations = Durations()
    durations.record(10 * HIGHEST_S)
    assert durations.max() == HIGHEST_S
    assert durations.percentile(50) == HIGHEST_S
    with pytest.raises(ValueError, match="duration"):
        durations.record(-1e-9)


@pytest.mark.parametrize("digits", [2, 3])
def test_what_went_through_another_process_and_was_merged_is_as_if_recorded_here(digits: int) -> None:
    values = np.random.default_rng(2).lognormal(-5, 1, 3000)
    whole, merged = Durations(digits), Durations(digits)
    for value in values:
        whole.record(float(value))
    for part in (values[:1000], values[1000:], values[:0]):
        share = Durations(digits)
        for value in part:
            share.record(float(value))
        merged.merge(pickle.loads(pickle.dumps(share)))
    assert merged.count == whole.count
    assert [merged.percentile(p) for p in (1, 50, 99.9)] == [whole.percentile(p) for p in (1, 50, 99.9)]
    assert (merged.max(), merged.mean()) == (whole.max(), pytest.approx(whole.mean()))
    merged.clear()
    assert (merged.count, merged.max(), merged.percentile(99)) == (0, None, None)
