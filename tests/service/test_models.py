"""Training on shops that are hardly any: a model or one line, never a traceback."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from ranking.bundle import read_manifest
from ranking.errors import TrainingError
from service.commands import data, models
from service.console import console
from tests.conftest import Server

SMALL = "\n[train]\nepochs = 1\ndimension = 4\nranker_steps = 2\n"


@pytest.fixture
def tiny(tmp_path: Path, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment of three events of three items on three days, its features in the store."""
    directory = tmp_path / "shop"
    data.init(directory, f"tiny{secrets.token_hex(4)}", valkey.address)
    with (directory / "endcap.toml").open("a") as config:
        config.write(SMALL)
    events, items = tmp_path / "events.csv", tmp_path / "items.csv"
    events.write_text(
        "user_id,item_id,event,timestamp\nu1,a,view,2026-01-01T10:00\nu1,b,view,2026-01-02T10:00\n"
        "u2,c,view,2026-01-03T10:00\n"
    )
    items.write_text("item_id,title\na,A\nb,B\nc,C\n")
    data.import_shop(directory, "generic", [events, items], shift_to_now=False)
    data.materialize(directory)
    monkeypatch.setattr(models, "forward", lambda *_: None)  # compiling says nothing about training
    return directory


def test_a_shop_too_small_to_evaluate_on_is_trained_on_and_says_so(tiny: Path) -> None:
    with console.capture() as captured:
        models.train(tiny, evaluate=True)
    assert "no evaluation: none of the newest examples comes after a snapshot of popularity" in captured.get()
    assert read_manifest(tiny / "models" / "default" / "1").metrics == {}


def test_evaluate_on_a_shop_that_is_too_small_says_why_it_cannot(tiny: Path) -> None:
    with pytest.raises(TrainingError, match="the ranker cannot learn"):
        models.evaluate(tiny, None)
