"""How alike two lists are, against what the load room says of the same ones: two programs of one definition."""

from __future__ import annotations

from random import Random

import pytest

from load import rankings
from ranking.agreement import overlap, rank_biased_overlap


def lists(seed: int) -> tuple[list[str], list[str]]:
    """Two lists of other lengths, of which some share much and some nothing."""
    random = Random(seed)
    items = [f"i{n}" for n in range(random.randint(1, 60))]
    return tuple(random.sample(items, random.randint(0, len(items))) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("p", [0.5, 0.9, 0.98])
def test_rank_biased_overlap_is_what_the_load_room_says(p: float) -> None:
    for seed in range(500):
        a, b = lists(seed)
        assert rank_biased_overlap(a, b, p) == pytest.approx(rankings.rank_biased_overlap(a, b, p), abs=1e-12), seed
        assert 0.0 <= rank_biased_overlap(a, b, p) <= 1.0


def test_overlap_is_what_the_load_room_says() -> None:
    for seed in range(500):
        a, b = lists(seed)
        if k := min(10, max(len(a), len(b))):
            assert overlap(a, b, k) == rankings.overlap(a, b, k), seed


def test_a_list_is_wholly_like_itself_and_not_at_all_like_another() -> None:
    for size in range(1, 60):
        a = [f"i{n}" for n in range(size)]
        assert (overlap(a, a, size), rank_biased_overlap(a, a)) == (1.0, pytest.approx(1.0, abs=1e-12))
        assert (overlap(a, ["x", "y"], 2), rank_biased_overlap(a, ["x", "y"])) == (0.0, 0.0)
    assert rank_biased_overlap([], []) == 1.0 and rank_biased_overlap(["x"], []) == 0.0
