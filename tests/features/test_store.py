"""What the Feast registry and the online store hold after `apply` and `materialize`."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from features.errors import InputError
from features.history import write_history
from features.store import apply, init_repo, materialize, open_store
from features.training import examples, point_in_time
from tests.conftest import Server
from tests.features.shops import shop

SHOP = shop(start=datetime.now(UTC).replace(microsecond=0) - timedelta(days=41))


def deploy(directory: Path, project: str, valkey: Server) -> Path:
    write_history(SHOP.events, SHOP.items, SHOP.users, directory / "data" / "features")
    repo = directory / "feature_repo"
    init_repo(repo, project, valkey.address)
    apply(repo)
    return repo


def test_feast_serves_the_last_row_of_the_history(valkey: Server, tmp_path: Path) -> None:
    repo = deploy(tmp_path, "lastrow", valkey)
    materialize(repo)
    rows = pq.read_table(tmp_path / "data" / "features" / "user_recent.parquet").to_pylist()
    last = {row["user_id"]: row["item_ids"] for row in rows}
    found = (
        open_store(repo)
        .get_online_features(features=["user_recent:item_ids"], entity_rows=[{"user_id": user} for user in last])
        .to_dict()
    )
    assert dict(zip(found["user_id"], found["item_ids"], strict=True)) == last


def test_rows_newer_than_the_end_stay_out_and_are_not_counted(valkey: Server, tmp_path: Path) -> None:
    """The row stamped `end` itself goes in; the next one does not, however close."""
    repo = deploy(tmp_path, "until", valkey)
    path = tmp_path / "data" / "features" / "user_activity.parquet"
    rows = pq.read_table(path).slice(0, 2)
    end = rows["event_timestamp"][0].as_py()
    times = pq.read_schema(path).field("event_timestamp")
    stamps = [end, end + timedelta(milliseconds=500)]
    rows = rows.set_column(rows.column_names.index("user_id"), "user_id", [["early", "late"]])
    rows = rows.set_column(rows.column_names.index("event_timestamp"), times, [stamps])
    pq.write_table(rows, path)
    assert materialize(repo, end).wrote["user_activity"] == 1
    asked = [{"user_id": "early"}, {"user_id": "late"}]
    found = open_store(repo).get_online_features(features=["user_activity:views_30d"], entity_rows=asked).to_dict()
    assert [value is None for value in found["views_30d"]] == [False, True]


def test_a_view_taken_out_of_the_definitions_leaves_the_registry(valkey: Server, tmp_path: Path) -> None:
    repo = deploy(tmp_path, "dropped", valkey)
    path = repo / "definitions.py"
    text = path.read_text()
    view, service = text.index("item_stats = FeatureView("), text.index("default = FeatureService(")
    path.write_text((text[:view] + text[service:]).replace("user_recent, item_stats]", "user_recent]"))
    apply(repo)
    store = open_store(repo)
    assert sorted(one.name for one in store.list_feature_views()) == ["user_activity", "user_profile", "user_recent"]
    assert [one.name for one in store.list_feature_services()] == ["default"]


def test_a_feature_that_no_column_holds_is_refused_with_its_view_before_anything_is_loaded(
    valkey: Server, tmp_path: Path
) -> None:
    repo = deploy(tmp_path, "renamed", valkey)
    path = repo / "definitions.py"
    path.write_text(path.read_text().replace('name="orders"', 'name="ordres"'))
    apply(repo)
    with pytest.raises(InputError, match=r"user_profile\.parquet: column ordres: the view user_profile has a feature"):
        materialize(repo)


def test_nothing_is_left_in_the_working_directory(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast's defaults write relative to it."""
    repo = deploy(tmp_path / "shop", "litter", valkey)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    materialize(repo)
    point_in_time(repo, examples(SHOP.events, weights={"view": 1.0}, limit=20), ["user_recent:item_ids"])
    assert not list(here.iterdir())


def test_feast_prints_nothing(valkey: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    repo = deploy(tmp_path, "silent", valkey)
    materialize(repo)
    assert capfd.readouterr() == ("", "")


def test_importing_feast_leaves_prometheus_in_its_ordinary_mode() -> None:
    """Feast's import sets the multi-process mode, in which separate registries share their values."""
    from prometheus_client import values

    assert values.ValueClass.__name__ == "MutexValue"
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
