"""Feature rows as the offline store keeps them: each true from its own time on."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import InputError
from features.history import VIEWS, write_history
from features.shop import EVENTS, Shop
from tests.features.shops import shop


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, Path]:
    directory = tmp_path_factory.mktemp("history") / "features"
    one = shop()
    write_history(one.events, one.items, one.users, directory)
    return one, directory


def rows(directory: Path, view: str) -> list[dict]:  # type: ignore[type-arg]
    found: list[dict] = pq.read_table(directory / f"{view}.parquet").to_pylist()  # type: ignore[type-arg]
    return found


def test_activity_and_recent_have_one_row_an_instant(made: tuple[Shop, Path]) -> None:
    one, directory = made
    instants = {(e["user_id"], e["timestamp"]) for e in one.events.to_pylist()}
    for view in ("user_activity", "user_recent"):
        found = [(row["user_id"], row["event_timestamp"]) for row in rows(directory, view)]
        assert len(found) == len(set(found)) and set(found) == instants


def test_a_row_is_the_state_after_all_events_of_its_instant(made: tuple[Shop, Path]) -> None:
    one, directory = made
    events = one.events.to_pylist()
    for row in rows(directory, "user_activity")[::17]:
        at = row["event_timestamp"]
        views = [e for e in events if e["user_id"] == row["user_id"] and e["event"] == "view"]
        assert row["views_7d"] == sum(at - timedelta(days=7) < e["timestamp"] <= at for e in views)
    for row in rows(directory, "user_recent")[::17]:
        touched = [e["item_id"] for e in events
                   if e["user_id"] == row["user_id"] and e["timestamp"] <= row["event_timestamp"]]  # fmt: skip
        assert row["item_ids"] == list(dict.fromkeys(reversed(touched)))[:20][::-1]


def test_spend_takes_the_catalogue_price_where_the_event_has_none(made: tuple[Shop, Path]) -> None:
    one, directory = made
    price = {i["item_id"]: i["price"] or 0.0 for i in one.items.to_pylist()}
    last = {row["user_id"]: row for row in rows(directory, "user_activity")}
    for user, row in last.items():
        since = row["event_timestamp"] - timedelta(days=30)
        bought = [e for e in one.events.to_pylist() if e["user_id"] == user and e["event"] == "purchase"]
        paid = sum(2 * price[e["item_id"]] for e in bought if since < e["timestamp"] <= row["event_timestamp"])
        assert row["spend_30d"] == pytest.approx(paid, rel=1e-4, abs=1e-3)


def test_a_snapshot_at_midnight_covers_what_came_strictly_before(made: tuple[Shop, Path]) -> None:
    one, directory = made
    events = one.events.to_pylist()
    newest = max(e["timestamp"] for e in events)
    for row in rows(directory, "item_stats")[::23]:
        at = row["event_timestamp"]
        times = [e["timestamp"] for e in events if e["item_id"] == row["item_id"]]
        covered = [t for t in times if (t <= at if at == newest else t < at)]
        assert row["events_7d"] == sum(
            t > at - timedelta(days=7) - timedelta(microseconds=at != newest) for t in covered
        )


def test_every_entity_has_a_row_at_the_newest_event(made: tuple[Shop, Path]) -> None:
    one, directory = made
    newest = max(e["timestamp"] for e in one.events.to_pylist())
    profiles = {row["user_id"] for row in rows(directory, "user_profile") if row["event_timestamp"] == newest}
    stats = {row["item_id"] for row in rows(directory, "item_stats") if row["event_timestamp"] == newest}
    assert profiles == set(one.events["user_id"].to_pylist())
    assert stats == set(one.items["item_id"].to_pylist())


def test_no_row_is_newer_than_the_newest_event(made: tuple[Shop, Path]) -> None:
    one, directory = made
    newest = max(e["timestamp"] for e in one.events.to_pylist())
    for view in VIEWS:
        assert max(row["event_timestamp"] for row in rows(directory, view)) <= newest


def test_unknown_prices_are_null_not_nan(made: tuple[Shop, Path]) -> None:
    _, directory = made
    assert {row["price"] for row in rows(directory, "item_stats") if row["item_id"] == "i00005"} == {None}


def test_times_have_microseconds_and_a_zone(made: tuple[Shop, Path]) -> None:
    """DuckDB, behind Feast's joins, cannot cast nanoseconds with a zone."""
    for view in VIEWS:
        kind = pq.read_schema(made[1] / f"{view}.parquet").field("event_timestamp").type
        assert kind == pa.timestamp("us", tz="UTC")


def test_a_failure_leaves_the_old_files(made: tuple[Shop, Path]) -> None:
    one, directory = made
    before = {entry.name: entry.read_bytes() for entry in directory.iterdir()}
    with pytest.raises(InputError, match="no events"):
        write_history(EVENTS.empty_table(), one.items, one.users, directory)
    assert {entry.name: entry.read_bytes() for entry in directory.iterdir()} == before
    assert [entry.name for entry in directory.parent.iterdir()] == [directory.name]


def test_a_user_without_events_has_no_rows(tmp_path: Path) -> None:
    one = shop(users=3, events=40)
    people = pa.concat_tables([one.users, pa.table({"user_id": ["idle"], "country": ["DE"]}, one.users.schema)])
    write_history(one.events, one.items, people, tmp_path / "features")
    assert "idle" not in {row["user_id"] for row in rows(tmp_path / "features", "user_profile")}
