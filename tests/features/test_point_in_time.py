"""Training features as of just before each label, through Feast's own join; and what Feast then serves online."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import FeatureStoreError, InputError
from features.history import write_history
from features.online import OnlineReader, ReadPlan
from features.pipeline import Pipeline
from features.registry import service_features
from features.store import apply, connection, init_repo, materialize, open_store, set_address
from features.training import examples, point_in_time
from service.valkey import free_port
from tests.conftest import Server
from tests.features.shops import shop

NOW = datetime.now(UTC).replace(microsecond=0)
SHOP = shop(start=NOW - timedelta(days=41))


def deploy(directory: Path, project: str, valkey: Server) -> Path:
    write_history(SHOP.events, SHOP.items, SHOP.users, directory / "data" / "features")
    repo = directory / "feature_repo"
    init_repo(repo, project, valkey.address)
    return repo


@pytest.fixture(scope="module")
def repo(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repo = deploy(tmp_path_factory.mktemp("pit"), "pit", valkey)
    apply(repo)
    return repo


def test_a_planted_leak_does_not_come_through(valkey: Server, tmp_path: Path) -> None:
    """Rows stamped at and after the label hold the answer; the join returns the one stamped just before it."""
    repo = deploy(tmp_path, "leak", valkey)
    label = NOW - timedelta(days=3)
    path = tmp_path / "data" / "features" / "user_recent.parquet"
    schema = pq.read_schema(path)
    stamps = [label - timedelta(microseconds=1), label, label + timedelta(seconds=1)]
    lists = [["before"], ["the answer"], ["the answer"]]
    planted = {"user_id": ["u0"] * 3, "event_timestamp": stamps, "item_ids": lists, "purchased_item_ids": lists}
    pq.write_table(pa.table(planted, schema), path)
    apply(repo)
    event = {"user_id": ["u0"], "item_id": ["the answer"], "event": ["view"], "timestamp": [label]}
    empty = {"session_id": [None], "quantity": [None], "price": [None]}
    labels = examples(pa.table(event | empty, SHOP.events.schema), weights={"view": 1.0})
    joined = point_in_time(repo, labels, ["user_recent:item_ids"])
    assert list(joined["user_recent:item_ids"][0]) == ["before"]


def test_joined_features_are_those_of_a_replay_up_to_each_label(repo: Path) -> None:
    labels = examples(SHOP.events, weights={"view": 1.0, "purchase": 5.0})
    joined = point_in_time(repo, labels, ["user_activity:views_7d", "user_recent:item_ids", "item_stats:events_30d"])
    events = SHOP.events.to_pandas()
    for i in range(0, len(labels), 29):
        at, user = labels["event_timestamp"][i], labels["user_id"][i]
        past = events[(events["user_id"] == user) & (events["timestamp"] <= at)]
        touched = list(dict.fromkeys(past["item_id"].tolist()[::-1]))[:20][::-1]
        found = joined["user_recent:item_ids"][i]
        assert ([] if found is None else list(found)) == touched
        last = past["timestamp"].max()  # the newest row, counted as of its own time
        views = past[(past["event"] == "view") & (past["timestamp"] > last - pd.Timedelta(days=7))]
        value = joined["user_activity:views_7d"][i]
        assert (0 if pd.isna(value) else value) == len(views)


def test_rows_keep_their_order_and_number_repeats_included(repo: Path) -> None:
    """Feast's join reorders rows and knows nothing of repeats."""
    labels = examples(SHOP.events, weights={"view": 1.0})
    shuffled = pd.concat([labels, labels.iloc[:25]]).sample(frac=1, random_state=3).reset_index(drop=True)
    joined = point_in_time(repo, shuffled, ["user_activity:views_30d"])
    pd.testing.assert_frame_equal(joined[list(shuffled.columns)], shuffled)


def test_a_row_past_its_ttl_is_null_and_an_unknown_entity_too(repo: Path) -> None:
    """user_activity has 30 days: a user's last row is gone 31 days later."""
    last = SHOP.events.to_pandas().groupby("user_id")["timestamp"].max()["u1"]
    ages = [last + timedelta(days=1), last + timedelta(days=31), last]
    asked = pd.DataFrame({"user_id": ["u1", "u1", "nobody"], "event_timestamp": ages})
    joined = point_in_time(repo, asked, ["user_activity:views_30d", "user_profile:country"])
    assert pd.isna(joined["user_activity:views_30d"]).tolist() == [False, True, True]
    assert pd.isna(joined["user_profile:country"]).tolist() == [False, False, True]


def test_examples_stay_within_their_times_and_are_just_before_their_events() -> None:
    since, until = NOW - timedelta(days=30), NOW - timedelta(days=10)
    found = examples(SHOP.events, weights={"purchase": 5.0}, since=since, until=until)
    times = found["event_timestamp"] + pd.Timedelta(microseconds=1)
    assert len(found) and times.between(since, until, inclusive="left").all() and (found["weight"] == 5.0).all()
    everything, newest = (examples(SHOP.events, weights={"view": 1.0}, limit=limit) for limit in (None, 10))
    pd.testing.assert_frame_equal(newest, everything.iloc[-10:].reset_index(drop=True))
    with pytest.raises(InputError, match="no event of the kinds wish"):
        examples(SHOP.events, weights={"wish": 1.0})


async def test_what_feast_materialized_is_what_the_reader_reads(repo: Path, valkey: Server) -> None:
    """The newest row of every user, value for value, through Feast's SDK and through ours."""
    report = materialize(repo)
    assert set(report.wrote) == {"item_stats", "user_activity", "user_profile", "user_recent"}
    store = open_store(repo)
    service = service_features(store, "default", "user")
    references = list(service.types)
    users = [f"u{i}" for i in range(12)] + ["nobody"]
    theirs: dict[str, Any] = store.get_online_features(
        features=references, entity_rows=[{"user_id": user} for user in users], full_feature_names=True
    ).to_dict()
    reader = OnlineReader(Pipeline(**connection(repo)), ReadPlan(service.project, service.join_key, service.views))
    try:
        for place, user in enumerate(users):
            ours = await reader.read(user)
            for reference in references:
                if ours.views[reference.split(":")[0]].status == "outside_max_age":
                    continue
                assert ours.values.get(reference) == theirs[reference.replace(":", "__")][place], (user, reference)
    finally:
        await reader.close()


def test_materializing_without_a_server_says_where_it_looked(repo: Path, valkey: Server) -> None:
    address = f"127.0.0.1:{free_port()}"
    set_address(repo, address)
    try:
        with pytest.raises(FeatureStoreError, match=f"Redis at {address}"):
            materialize(repo)
    finally:
        set_address(repo, valkey.address)


def test_a_missing_feature_file_is_named(valkey: Server, tmp_path: Path) -> None:
    repo = deploy(tmp_path, "gone", valkey)
    apply(repo)
    (tmp_path / "data" / "features" / "item_stats.parquet").unlink()
    with pytest.raises(InputError, match=r"item_stats\.parquet"):
        materialize(repo)


def test_a_mistake_in_the_definitions_is_one_line_with_the_file(valkey: Server, tmp_path: Path) -> None:
    repo = deploy(tmp_path, "typo", valkey)
    text = (repo / "definitions.py").read_text()
    (repo / "definitions.py").write_text(text.replace("dtype=Int64", "dtype=Int63", 1))
    with pytest.raises(InputError, match=r"definitions.py: name 'Int63' is not defined") as caught:
        apply(repo)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("project", "address"), [("my shop", "h:1"), ("shop", "nowhere"), ("", "h:1")])
def test_init_refuses_names_that_feast_would(tmp_path: Path, project: str, address: str) -> None:
    with pytest.raises(InputError):
        init_repo(tmp_path, project, address)
    assert not list(tmp_path.iterdir())


def test_init_leaves_what_is_there(tmp_path: Path) -> None:
    init_repo(tmp_path, "shop", "h:1")
    with pytest.raises(InputError, match="is there already"):
        init_repo(tmp_path, "other", "h:2")
    assert connection(tmp_path) == {"host": "h", "port": 1}


def test_connection_options_are_read_as_feast_reads_them(tmp_path: Path) -> None:
    init_repo(tmp_path, "shop", "h:1")
    set_address(tmp_path, "h:2,ssl=true,password=secret,db=2")
    set_address(tmp_path, "redis.internal:6380")
    found = connection(tmp_path)
    assert found == {"host": "redis.internal", "port": 6380, "ssl": True, "password": "secret", "db": 2}


def test_a_thousand_rows_split_over_chunks_are_the_same(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = examples(SHOP.events, weights={"view": 1.0})
    whole = point_in_time(repo, labels, ["user_activity:views_30d"])
    monkeypatch.setattr("features.training.CHUNK", 97)
    parts = point_in_time(repo, labels, ["user_activity:views_30d"])
    np.testing.assert_array_equal(whole["user_activity:views_30d"], parts["user_activity:views_30d"])
