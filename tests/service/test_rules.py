"""A placement's rules on a ranked list."""

from __future__ import annotations

import numpy as np
import pytest

from service.placements import PlacementRules
from service.rules import choose


def chosen(new: str, count: int, every: int | None, category: str = "", cap: int | None = None) -> list[int]:
    """The places shown of a list with an `n` for each new item."""
    codes = np.array([ord(one) for one in category or "x" * len(new)], np.int32)
    flags = np.array([one == "n" for one in new])
    return choose(codes, flags, PlacementRules(category_cap=cap, new_every=every), count).tolist()


@pytest.mark.parametrize(
    ("new", "count", "every", "places"),
    [
        ("......nn", 4, 4, [0, 1, 2, 6]),
        ("......nn", 4, 2, [0, 1, 6, 7]),
        (".n....nn", 4, 4, [0, 1, 2, 3]),  # the ranker's own choice is enough
        (".n....nn", 4, 2, [0, 1, 2, 6]),
        ("......nn", 3, 4, [0, 1, 2]),  # too short an answer
        ("........", 4, 2, [0, 1, 2, 3]),
        ("......nn", 4, None, [0, 1, 2, 3]),
        ("nn", 4, 2, [0, 1]),
        ("", 4, 2, []),
    ],
)
def test_of_every_so_many_places_one_at_the_end_is_new(
    new: str, count: int, every: int | None, places: list[int]
) -> None:
    assert chosen(new, count, every) == places


def test_what_the_category_cap_passed_over_gives_way_first() -> None:
    assert chosen(".....n", 4, 4, "aaabba", cap=2) == [0, 1, 3, 5]
