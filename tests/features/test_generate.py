"""The made-up shop: that it is what it says, the same each time, and that taste can be told from popularity in it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

from features.errors import InputError
from features.generate import generate_shop
from features.shop import ITEMS, Shop, validate

UNTIL = datetime(2026, 1, 15, 12, 30, 15, 123_456, tzinfo=UTC)


@pytest.fixture(scope="module")
def shop() -> Shop:
    """The shop of the demo, at a fixed time."""
    made, report = generate_shop(until=UNTIL)
    assert report.wrote == {"events": 300_000, "items": 10_000, "users": 5_000}
    return made


@pytest.fixture(scope="module")
def events(shop: Shop) -> pd.DataFrame:
    """The events with the category of each item."""
    frame: pd.DataFrame = shop.events.join(shop.items.select(["item_id", "category"]), "item_id").to_pandas()
    return frame.sort_values("timestamp", kind="stable")


def test_it_is_a_valid_shop_of_the_size_that_was_asked_for(shop: Shop) -> None:
    validate(shop)
    assert (shop.events.num_rows, shop.items.num_rows, shop.users.num_rows) == (300_000, 10_000, 5_000)
    assert shop.items.column_names == [*ITEMS.names, "rating", "color", "material", "age_days"]
    assert pc.count_distinct(shop.events["user_id"]).as_py() > 4_950


def test_the_same_seed_and_time_give_the_same_shop_and_another_seed_another() -> None:
    size = {"items": 200, "users": 50, "events": 2_000, "until": UNTIL}
    one, again, other = (generate_shop(seed=seed, **size)[0] for seed in (1, 1, 2))  # type: ignore[arg-type]
    assert one.events.equals(again.events)
    assert one.items.equals(again.items)
    assert one.users.equals(again.users)
    assert not one.events.equals(other.events)
    assert not one.items.equals(other.items)


def test_no_event_is_later_than_the_end_and_times_are_whole_milliseconds(shop: Shop) -> None:
    stamps = shop.events["timestamp"]
    newest, oldest = pc.max(stamps).as_py(), pc.min(stamps).as_py()
    assert UNTIL - timedelta(hours=1) < newest <= UNTIL
    assert UNTIL - timedelta(days=60, hours=1) < oldest < UNTIL - timedelta(days=59)
    assert not np.any(stamps.cast("int64").to_numpy() % 1000)


@pytest.mark.parametrize("size", [(40, 1, 1, 1), (40, 3, 2_000, 2), (300, 1_000, 77, 30)])
def test_small_and_lopsided_shops_have_their_exact_size_too(size: tuple[int, int, int, int]) -> None:
    items, users, events, days = size
    made, _ = generate_shop(items=items, users=users, events=events, days=days)
    validate(made)
    assert (made.items.num_rows, made.users.num_rows, made.events.num_rows) == (items, users, events)
    assert pc.max(made.events["timestamp"]).as_py() <= datetime.now(UTC)


@pytest.mark.parametrize(("name", "number"), [("items", 39), ("users", 0), ("events", 0), ("days", 0), ("seed", -1)])
def test_numbers_that_are_too_small_are_refused(name: str, number: int) -> None:
    with pytest.raises(InputError, match=f"--{name} must be at least {number + 1}, not {number}"):
        generate_shop(**{name: number})  # type: ignore[arg-type]


def test_more_days_than_since_1970_are_refused_by_the_option_s_name() -> None:
    with pytest.raises(InputError, match=r"--days must be at most 20\d\d\d, not 100000: no event may lie before 1970"):
        generate_shop(days=100_000)


def test_titles_are_all_different_and_name_the_material(shop: Shop) -> None:
    rows = shop.items.to_pylist()
    assert len({row["title"] for row in rows}) == len(rows)
    assert all(row["material"] in row["title"] and "None" not in row["title"] for row in rows)


def test_prices_are_plausible_for_the_category_and_end_as_in_a_shop(shop: Shop) -> None:
    items = shop.items.to_pandas()
    assert set((items["price"] * 100).round().astype(int) % 100) == {99, 50, 95}
    medians = items.groupby("category")["price"].median()
    assert len(medians) == 40
    assert medians["Socks & Tights"] < medians["Knitwear"] < medians["Boots"]


def test_about_85_views_come_with_10_carts_and_5_purchases(events: pd.DataFrame) -> None:
    share = events["event"].value_counts(normalize=True)
    assert share["view"] == pytest.approx(0.85, abs=0.02)
    assert share["cart"] == pytest.approx(0.10, abs=0.015)
    assert share["purchase"] == pytest.approx(0.05, abs=0.01)


def test_a_session_is_one_shoppers_and_a_cart_follows_its_view(events: pd.DataFrame) -> None:
    assert (events.groupby("session_id")["user_id"].nunique() == 1).all()
    before = {"cart": "view", "purchase": "cart"}
    for _, rows in events.head(20_000).groupby(["session_id", "item_id"]):
        for earlier, later in pairwise(rows["event"]):
            assert before[later] == earlier
    views = events["event"] == "view"
    assert events.loc[views, "quantity"].isna().all()
    assert (events.loc[~views, "quantity"] >= 1).all()


def test_about_three_in_a_hundred_items_are_out_of_stock(shop: Shop) -> None:
    assert pc.mean(pc.invert(shop.items["in_stock"]).cast("float64")).as_py() == pytest.approx(0.03, abs=0.008)


def test_nothing_happens_to_an_item_before_it_came_into_the_shop(shop: Shop) -> None:
    seen = shop.events.join(shop.items.select(["item_id", "age_days"]), "item_id").to_pandas()
    age = (UNTIL - seen["timestamp"]).dt.total_seconds() / 86_400
    assert (age < seen["age_days"] + 1).all()
    assert (seen["age_days"] < 60).any()


def test_popularity_and_activity_are_heavy_tailed(events: pd.DataFrame) -> None:
    """The first hundredth of the items draws a tenth of the events and more; the busiest shoppers dwarf the median."""
    items, users = events["item_id"].value_counts(), events["user_id"].value_counts()
    assert 0.10 < items.head(100).sum() / len(events) < 0.5
    assert users.quantile(0.99) > 8 * users.median()


def test_evenings_and_weekends_are_busier(events: pd.DataFrame) -> None:
    by_hour = Counter(events["timestamp"].dt.hour)
    assert by_hour[19] > 5 * by_hour[3]
    by_day = Counter(events["timestamp"].dt.dayofweek)
    assert by_day[6] > 1.15 * by_day[1]


def halves(events: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    cut = events["timestamp"].quantile(0.7)
    return events[events["timestamp"] < cut], events[events["timestamp"] >= cut]


def favourites(events: pd.DataFrame, count: int) -> set[tuple[str, str]]:
    """(user, category) of each user's most frequent categories."""
    sizes = events.groupby(["user_id", "category"]).size().sort_values(ascending=False)
    return set(sizes.groupby(level="user_id").head(count).index)


def test_later_events_are_in_the_shoppers_own_categories_far_more_often_than_in_the_popular_ones(
    events: pd.DataFrame,
) -> None:
    before, after = halves(events)
    own, popular = favourites(before, 5), set(before["category"].value_counts().head(5).index)
    hits_own = np.mean([pair in own for pair in zip(after["user_id"], after["category"], strict=True)])
    hits_popular = after["category"].isin(popular).mean()
    assert hits_own > 2 * hits_popular


def test_tastes_drift(events: pd.DataFrame) -> None:
    """What was a favourite in the first twenty days is less so in the last twenty than it was in between."""
    age = (events["timestamp"].max() - events["timestamp"]).dt.days
    first, middle, last = events[age >= 40], events[(age >= 20) & (age < 40)], events[age < 20]
    own = favourites(first, 2)
    share = [np.mean([p in own for p in zip(e["user_id"], e["category"], strict=True)]) for e in (middle, last)]
    assert share[1] < 0.97 * share[0]


def test_items_seen_together_tell_what_comes_next_better_than_popularity(events: pd.DataFrame) -> None:
    """Recall@10 over the last fifth in time, of items new to the shopper: co-visitation against popularity."""
    cut = events["timestamp"].quantile(0.8)
    users, items = (pd.Categorical(events[name]).codes.astype(np.int64) for name in ("user_id", "item_id"))
    early = (events["timestamp"] < cut).to_numpy()
    seen = np.zeros((users.max() + 1, items.max() + 1), np.float32)
    seen[users[early], items[early]] = 1
    later = np.zeros_like(seen)
    later[users[~early], items[~early]] = 1
    later[seen > 0] = 0
    tested = np.flatnonzero(later.any(axis=1))[::10]
    popularity = seen.sum(axis=0)
    even = seen / np.sqrt(popularity + 1)  # cosine: what everybody saw tells little
    together = (even[tested] @ even.T) @ even

    def recall(scores: np.ndarray) -> float:
        top = np.argpartition(-np.where(seen[tested] > 0, -1, scores), 10, axis=1)[:, :10]
        hits = np.take_along_axis(later[tested], top, axis=1).sum(axis=1)
        return float(np.mean(hits / np.minimum(later[tested].sum(axis=1), 10)))

    assert recall(together) > 2 * recall(np.broadcast_to(popularity, together.shape))
