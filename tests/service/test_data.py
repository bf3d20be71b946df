"""Bringing a shop in: what an earlier one left stays until the new one is in place."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from features.errors import InputError
from features.progress import Report
from features.shop import read_shop, write_shop
from service.commands import data
from service.console import console
from service.deployment import Deployment
from tests.features.shops import shop

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def here(tmp_path: Path) -> Deployment:
    """A deployment with a shop and features made of it."""
    data.init(tmp_path / "shop", "shop", NOWHERE)
    here = Deployment.at(tmp_path / "shop")
    write_shop(shop(), here.data)
    here.features.mkdir()
    (here.features / "user_recent.parquet").write_bytes(b"features")
    return here


def files(directory: Path) -> dict[Path, bytes]:
    return {entry: entry.read_bytes() for entry in directory.rglob("*") if entry.is_file()}


def test_a_refused_shop_leaves_the_features_that_were_there(here: Deployment) -> None:
    before, good = files(here.data), shop()
    bad = replace(good, items=good.items.slice(1))  # an event's item is not in it
    with pytest.raises(InputError):
        data.keep(here, bad, Report(), {"format": "generic"})
    with pytest.raises(InputError, match="--days"):
        data.generate(here.directory, seed=1, items=40, users=1, events=1, days=100_000)
    assert files(here.data) == before


def test_a_disk_that_refuses_leaves_the_features_that_were_there(
    here: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = files(here.data)
    monkeypatch.setattr(data, "write_shop", full)
    with pytest.raises(OSError, match="No space"):
        data.keep(here, shop(), Report(), {"format": "generic"})
    assert files(here.data) == before


def test_import_drops_events_of_a_time_to_come_and_names_the_kinds_that_train_nothing(
    here: Deployment, tmp_path: Path
) -> None:
    events, items = tmp_path / "events.csv", tmp_path / "[red] items.csv"
    rows = ["u1,a,view,2026-01-01", "u1,a,veiw,2026-01-02", "u1,a,veiw,2026-01-03", "u1,a,[/crat],2026-01-03"]
    soon = datetime.now(UTC) + timedelta(seconds=250)
    rows += ["u2,a,view,2062-01-01", f"u3,a,view,{soon.isoformat()}"]
    events.write_text("user_id,item_id,event,timestamp\n" + "\n".join(rows) + "\n")
    items.write_text("item_id,title\na,A thing\n")
    with console.capture() as captured:
        data.import_shop(here.directory, "generic", [events, items], shift_to_now=False)
    said = captured.get()
    assert read_shop(here.data).users["user_id"].to_pylist() == ["u1", "u3"]
    assert "later than now + events.max_ahead_s 1" in said
    assert "events that train nothing: 'veiw' 2, '[/crat]' 1; the kinds that do: view, cart, purchase" in said


def test_another_shop_in_place_takes_the_features_of_the_first_away(here: Deployment) -> None:
    data.keep(here, shop(seed=1), Report(), {"format": "generic"})
    assert not here.features.exists() and here.shop_id()
