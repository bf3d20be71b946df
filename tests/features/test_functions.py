"""Each feature function against a plain count over the events."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.functions import (
    DAY,
    HOUR,
    PURCHASED,
    RECENT,
    WINDOWS,
    activity,
    activity_now,
    item_popularity,
    kind_codes,
    profile,
    recent,
    recent_now,
)

times = st.lists(st.integers(0, 40 * 24), min_size=1, max_size=40).map(
    lambda hours: np.sort(np.array(hours, np.int64)) * HOUR
)


@settings(max_examples=60, deadline=None)
@given(times, st.integers(0, 2**31))
def test_counters_count_the_events_in_the_window_its_end_included(stamps: Any, seed: int) -> None:
    """An event counts from its own instant on, and no longer once it is as old as the window."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(["view", "cart", "purchase", "wish"], len(stamps))
    spend = np.where(kinds == "purchase", rng.random(len(stamps)), 0.0)
    at = np.unique(np.concatenate([stamps, stamps + HOUR, stamps + 7 * DAY - 1]))
    found = activity(stamps, kind_codes(kinds), spend, at)
    for name, kind in (("views", "view"), ("carts", "cart"), ("purchases", "purchase")):
        for window, size in WINDOWS.items():
            expected = [sum(k == kind and t - size < s <= t for s, k in zip(stamps, kinds, strict=True)) for t in at]
            assert found[f"{name}_{window}"].tolist() == expected
    paid = [sum(p for s, p in zip(stamps, spend, strict=True) if t - 30 * DAY < s <= t) for t in at]
    np.testing.assert_allclose(found["spend_30d"], paid, rtol=1e-5, atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(times, st.integers(0, 2**31), st.integers(1, 60))
def test_at_one_instant_the_features_are_those_of_training(stamps: Any, seed: int, items: int) -> None:
    """No training-serving skew: what the consumer computes is what the history's replay does, at every event."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(["view", "cart", "purchase", "wish"], len(stamps))
    spend = np.where(kinds == "purchase", np.round(rng.random(len(stamps)) * 99, 2), 0.0)
    touched = rng.integers(0, items, len(stamps)).tolist()
    at = np.unique(stamps)
    counted = activity(stamps, kind_codes(kinds), spend, at)
    seen, bought = recent(stamps, touched, kinds == "purchase", at)
    for place, when in enumerate(at.tolist()):
        end = int(np.searchsorted(stamps, when, "right"))
        now = activity_now(stamps.tolist(), kinds.tolist(), spend.tolist(), when)
        assert np.float32(now.pop("spend_30d")) == pytest.approx(counted["spend_30d"][place], rel=1e-6)
        assert now == {name: values[place] for name, values in counted.items() if name != "spend_30d"}
        assert recent_now(touched[:end], (kinds[:end] == "purchase").tolist()) == (seen[place], bought[place])


def test_recent_is_distinct_newest_last_and_bounded() -> None:
    stamps = np.arange(100, dtype=np.int64)
    items = [i % 30 for i in range(100)]
    seen, bought = recent(stamps, items, np.ones(100, bool), np.array([4, 99]))
    assert seen[0] == [0, 1, 2, 3, 4]
    assert seen[1] == [i % 30 for i in range(80, 100)] and len(seen[1]) == RECENT
    assert sorted(bought[1]) == list(range(30)) and bought[1][-1] == 9 and len(bought[1]) <= PURCHASED


def test_an_item_touched_again_moves_to_the_end() -> None:
    seen, bought = recent(np.array([1, 2, 3]), ["a", "b", "a"], np.array([True, False, False]), np.array([2, 3]))
    assert seen == [["a", "b"], ["b", "a"]] and bought == [["a"], ["a"]]


def test_features_at_a_time_do_not_depend_on_later_events() -> None:
    """The very property that keeps the future out of training."""
    stamps = np.arange(0, 50, dtype=np.int64) * HOUR
    kinds = np.array(["view", "purchase"] * 25)
    spend = np.where(kinds == "purchase", 3.0, 0.0)
    at = stamps[:20]
    short, long = (activity(stamps[:n], kind_codes(kinds[:n]), spend[:n], at) for n in (20, 50))
    for name in short:
        np.testing.assert_array_equal(short[name], long[name])
    prices, categories, orders = np.arange(50.0), [f"c{i % 3}" for i in range(50)], [f"o{i}" for i in range(50)]
    assert profile(stamps[:20], prices[:20], categories[:20], orders[:20], at) == profile(
        stamps, prices, categories, orders, at
    )


def test_profile_counts_orders_once_and_leaves_unknown_prices_out() -> None:
    stamps = np.array([0, 1, 2, DAY], np.int64)
    found = profile(
        stamps, np.array([np.nan, 4.0, 6.0, 2.0]), ["", "mugs", "mugs", "bags"], [None, "o1", "o1", "o2"],
        np.array([0, 2, DAY]),
    )  # fmt: skip
    assert found["orders"] == [0, 1, 2]
    assert found["avg_price"] == [None, 5.0, 4.0]
    assert found["top_category"] == ["", "mugs", "mugs"]
    assert found["tenure_days"] == pytest.approx([0, 0, 1.0], abs=1e-9)


def test_popularity_of_an_item_that_nobody_touched_is_zero() -> None:
    found = item_popularity(np.zeros(0, np.int64), np.zeros(0, bool), np.array([5, 6]))
    assert {tuple(values.tolist()) for values in found.values()} == {(0, 0)}
