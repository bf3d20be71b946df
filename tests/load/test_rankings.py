"""Rankings: figures worked out by hand from the definitions."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load.rankings import kendall_tau, overlap, rank_biased_overlap

lists = st.lists(st.sampled_from("abcdefghij"), unique=True)


@pytest.mark.parametrize(
    ("a", "b", "k", "expected"),
    [
        ("abcd", "abdc", 1, 1.0),
        ("abcd", "badc", 1, 0.0),
        ("abcd", "abxy", 4, 0.5),
        ("abcd", "ab", 4, 0.5),  # what the shorter lacks is different
        ("abcd", "abcd", 5, None),  # nobody was asked for so many
        ("", "", 1, None),
    ],
)
def test_overlap_is_the_share_of_the_first_k_that_both_have(a: str, b: str, k: int, expected: float | None) -> None:
    assert overlap(a, b, k) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("abc", "abc", 1.0),
        ("abc", "xyz", 0.0),
        ("", "", 1.0),
        ("", "a", 0.0),
        ("ab", "ba", 0.9),  # X = 0, 2: (1-p)/p * p^2 + p^2 = p
        ("abc", "acb", 0.955),  # X = 1, 1, 3: 0.1 * (1 + 0.9/2 + 0.81) + 0.729
        ("a", "ab", 1.0),  # the shorter is extrapolated: X_s/s = 1 at every depth
        # X = 0, 2, 2, 2; every depth from the second agrees as much as it can: (0.81 + 0.729 + 0.6561) / 9 + 0.6561
        ("ab", "baxy", 0.9),
        # X = 1, 1, 2 with s = 2 (a, c) and l = 3 (a, b, c): c is met at depth 3.
        ("ac", "abc", 0.1 / 0.9 * (0.9 + 0.81 / 2 + 0.729 * (2 / 3 + 1 * 1 / (2 * 3))) + (1 / 3 + 1 / 2) * 0.729),
    ],
)
def test_rank_biased_overlap_is_that_of_the_paper(a: str, b: str, expected: float) -> None:
    assert rank_biased_overlap(a, b, 0.9) == pytest.approx(expected, abs=1e-12)
    assert rank_biased_overlap(b, a, 0.9) == pytest.approx(expected, abs=1e-12)


def test_a_change_at_the_top_weighs_more_than_one_further_down() -> None:
    assert rank_biased_overlap("abcdef", "xbcdef") < rank_biased_overlap("abcdef", "abcdex")


@given(lists, lists)
def test_rank_biased_overlap_is_that_of_its_formula_on_any_two_lists(a: list[str], b: list[str]) -> None:
    """Equation 32 term by term, each depth's overlap counted anew."""
    short, long = sorted((a, b), key=len)
    s, top, p = len(short), len(long), 0.9
    if not s:
        assert rank_biased_overlap(a, b, p) == (not top)
        return
    x = [len(set(long[:depth]) & set(short[:depth])) for depth in range(top + 1)]
    total = sum(x[d] / d * p**d for d in range(1, top + 1))
    total += sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, top + 1))
    expected = (1 - p) / p * total + ((x[top] - x[s]) / top + x[s] / s) * p**top
    assert rank_biased_overlap(a, b, p) == pytest.approx(expected)
    assert rank_biased_overlap(b, a, p) == pytest.approx(expected)
    assert -1e-12 <= expected <= 1 + 1e-12


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("abc", "abc", 1.0), ("abc", "cba", -1.0), ("abc", "acb", 1 / 3), ("axb", "byza", -1.0), ("ab", "bc", None)],
)
def test_kendalls_tau_is_the_order_of_what_both_have(a: str, b: str, expected: float | None) -> None:
    assert kendall_tau(a, b) == (None if expected is None else pytest.approx(expected))


@given(lists, lists)
def test_kendalls_tau_counts_the_pairs_in_order_and_out_of_it(a: list[str], b: list[str]) -> None:
    common = [item for item in a if item in b]
    signs = [1 if b.index(first) < b.index(second) else -1 for first, second in combinations(common, 2)]
    assert kendall_tau(a, b) == (pytest.approx(sum(signs) / len(signs)) if signs else None)
