"""What a query does without, rung by rung."""

from __future__ import annotations

import pytest

from ranking.batch import Query
from service.ladder import least_rung, popular_only, rungs, without

HOME = Query({}, {"personal": 400, "covisit": 100, "popular": 60}, 20)


@pytest.mark.parametrize(
    ("query", "nprobe", "expected"),
    [
        (HOME, 64, ("nprobe", "candidates", "ranker")),
        (HOME, 1, ("candidates", "ranker")),
        (Query({}, {"personal": 60}, 20), 64, ("nprobe", "ranker")),
        (Query({}, {"similar": 400}, 20, ranked=False), 64, ("nprobe",)),
        (Query({}, {"popular": 400}, 20, ranked=False), 64, ()),
        (Query({}, {"request": 2}, 2, rank=["a", "b"]), 64, ("ranker",)),
    ],
)
def test_only_what_would_make_a_difference_is_on_the_ladder(
    query: Query, nprobe: int, expected: tuple[str, ...]
) -> None:
    assert rungs(query, nprobe) == expected


def test_each_rung_asks_for_less() -> None:
    assert without(HOME, ()) is HOME
    fewer = without(HOME, ("nprobe", "candidates"))
    assert (fewer.probe, fewer.ranked, dict(fewer.sources)) == (
        0.25,
        True,
        {"personal": 100, "covisit": 25, "popular": 20},
    )
    plain = without(HOME, ("nprobe", "candidates", "ranker"))
    assert (plain.ranked, dict(plain.sources)) == (False, {"personal": 20, "covisit": 20, "popular": 20})
    own = Query({}, {"request": 2}, 2, rank=["a", "b"])
    assert not without(own, ("ranker",)).ranked and popular_only(own).rank == ["a", "b"]
    assert dict(popular_only(HOME).sources) == {"popular": 20}


def test_the_fuller_the_gate_the_more_is_given_up() -> None:
    assert [least_rung(pressure, 3) for pressure in (0.1, 0.75, 0.8, 0.9, 1.0)] == [0, 0, 1, 2, 3]
    assert least_rung(1.0, 1) == 1
    assert (least_rung(1.1, 1), least_rung(1.1, 3)) == (2, 4)  # beyond the limit nothing is left of the ladder
