from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load.sketch import Sketch


@given(st.lists(st.floats(0, 1e9), min_size=1), st.sampled_from([0.5, 0.95, 1.0]))
def test_a_quantile_is_within_1_percent_of_the_number_it_stands_for(values: list[float], share: float) -> None:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    assert sketch.quantile(share) == pytest.approx(exact, rel=0.0101)
    assert sketch.mean() == pytest.approx(sum(values) / len(values))


def test_nothing_added_has_no_quantile_and_no_mean() -> None:
    assert Sketch().quantile(0.5) is None
    assert Sketch().mean() is None


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_what_is_no_finite_number_from_0_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="is not a finite number from 0"):
        Sketch().add(value)
