"""The best of a query's candidates, and the newest of a history."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ranking.encoding import newest_learned
from ranking.leaders import FEW, leaders

SCORES = st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, 3.0]), max_size=200)


@given(SCORES, st.integers(1, 2 * FEW))
def test_the_best_come_first_and_equals_keep_their_order(scores: list[float], keep: int) -> None:
    said = np.array(scores, np.float32)
    assert leaders(said, keep).tolist() == np.argsort(-said, kind="stable")[:keep].tolist()


@given(st.lists(st.lists(st.integers(-1, 30), max_size=12), min_size=1, max_size=5), st.integers(1, 8))
def test_a_history_is_the_newest_items_that_the_models_know_at_the_end_of_its_line(
    seen: list[list[int]], length: int
) -> None:
    learned = 20
    out = np.full((len(seen), length), -1, np.int64)
    rows = [row for one in seen for row in one]
    newest_learned(np.array(rows, np.int64), np.array([len(one) for one in seen]), learned, out)
    for line, one in zip(out.tolist(), seen, strict=True):
        known = [row for row in one if 0 <= row < learned][-length:]
        assert line == [-1] * (length - len(known)) + known
