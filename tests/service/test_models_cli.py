"""`endcap models`: what it lists, what it changes, and what it refuses with one line and no change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ranking.bundle import load_bundle
from ranking.registry import FILE, Registry
from service import cli
from service.console import console, errors
from tests.service.conftest import save_untrained


@pytest.fixture
def shop(deployment: Path, tmp_path: Path) -> Path:
    """A copy of the deployment, with versions 1, 2 and 3."""
    copy = tmp_path / "shop"
    shutil.copytree(deployment, copy)
    save_untrained(copy / "models", 2)
    return copy


def said(shop: Path, *argv: str) -> str:
    with console.capture() as captured:
        assert cli.main(["models", *argv, "--dir", str(shop)]) == 0
    return captured.get()


def refused(shop: Path, *argv: str) -> str:
    """One line; asserts that aliases.json is what it was."""
    path = shop / "models" / "default" / FILE
    before = path.read_bytes() if path.exists() else None
    with console.capture(), errors.capture() as captured:
        assert cli.main(["models", *argv, "--dir", str(shop)]) == 2
    assert (path.read_bytes() if path.exists() else None) == before
    line = captured.get()
    assert line.count("\n") == 1 and line.startswith("endcap: "), line
    return line


def production(shop: Path) -> str | None:
    return Registry(shop / "models").read("default").aliases.get("production")


def set_config(shop: Path, before: str, after: str) -> None:
    path = shop / "endcap.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_promotion_is_listed_with_who_and_why(shop: Path) -> None:
    assert "production is version 2 (was unset)" in said(
        shop, "promote", "default", "2", "--by", "ann", "--why", "test"
    )
    said(shop, "promote", "default", "3", "--alias", "candidate", "--by", "ann")
    table = said(shop, "list")
    assert max(map(len, table.splitlines())) <= 80
    assert "promote production unset -> 2 by ann: test" in table and "candidate" in table
    assert "already; nothing was changed" in said(shop, "promote", "default", "2")


def test_json_has_all_of_a_model(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(shop, "promote", "default", "2")
    capsys.readouterr()
    said(shop, "list", "default", "--json")
    (model,) = json.loads(capsys.readouterr().out)
    assert [one["version"] for one in model["versions"]] == ["1", "2", "3"]
    two = model["versions"][1]
    home = shop / "models" / "default" / "2"
    assert two["items"] == len(load_bundle(home).items) == 200
    assert two["bytes"] == sum(one.stat().st_size for one in home.iterdir())
    assert (two["aliases"], model["aliases"], model["generation"]) == (["production"], {"production": "2"}, 1)
    assert model["history"][0]["by"]


def test_what_there_is_not_is_refused_with_what_there_is(shop: Path) -> None:
    assert "version 7 does not exist; there are 1, 2, 3" in refused(shop, "promote", "default", "7")
    assert "no model 'nope'; there are default" in refused(shop, "promote", "nope", "1")
    assert "no model nope; there are default" in refused(shop, "list", "nope")
    assert "an alias matches" in refused(shop, "promote", "default", "1", "--alias", "Prod!")


def test_a_damaged_version_is_refused_by_the_name_of_its_file(shop: Path) -> None:
    """A flipped byte: nothing is changed."""
    said(shop, "promote", "default", "2")
    path = shop / "models" / "default" / "3" / "embeddings.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "default/3: embeddings.npy: SHA-256" in refused(shop, "promote", "default", "3")
    assert production(shop) == "2"


def test_a_version_that_feast_does_not_fit_is_refused(shop: Path) -> None:
    save_untrained(shop / "models", max_age_s={"user_profile": 1.0, "user_activity": 1.0, "user_recent": 1.0})
    assert "does not fit the Feast registry: user_" in refused(shop, "promote", "default", "4")


def test_a_rollback_goes_back_one_and_another_goes_back_one_further(shop: Path) -> None:
    for version in "123":
        said(shop, "promote", "default", version)
    assert "production is version 2 (was 3)" in said(shop, "rollback", "default")
    assert "production is version 1 (was 2)" in said(shop, "rollback", "default")
    assert "the history has none before it; promote one of: 2, 3" in refused(shop, "rollback", "default")
    said(shop, "promote", "default", "3")
    assert "production is version 1 (was 3)" in said(shop, "rollback", "default")
    assert "no version is candidate" in refused(shop, "rollback", "default", "--alias", "candidate")


def test_what_somebody_else_changed_while_a_version_was_checked_is_one_line(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two promotions at once: the first one stands."""
    from service.registry import Changes

    check = Changes.check

    def meanwhile(changes: Changes, name: str, version: str) -> None:
        monkeypatch.setattr(Changes, "check", check)
        said(shop, "promote", "default", "1")
        before.append((shop / "models" / "default" / FILE).read_bytes())

    before: list[bytes] = []
    monkeypatch.setattr(Changes, "check", meanwhile)
    with console.capture(), errors.capture() as captured:
        assert cli.main(["models", "promote", "default", "2", "--dir", str(shop)]) == 2
    assert "was changed meanwhile: promote of 1 at" in captured.get() and captured.get().count("\n") == 1
    assert [(shop / "models" / "default" / FILE).read_bytes()] == before


def test_a_promotion_beside_another_that_is_being_written_is_one_line(shop: Path) -> None:
    with Registry(shop / "models").locked("default"):
        assert "another change is under way; nothing was done" in refused(shop, "promote", "default", "2")


def test_retired_is_what_answers_no_more_until_it_is_restored(shop: Path) -> None:
    said(shop, "promote", "default", "2")
    said(shop, "retire", "default", "3")
    assert "version 3 is retired; there are 1, 2" in refused(shop, "promote", "default", "3")
    assert "version 3 is retired already" in refused(shop, "retire", "default", "3")
    assert "version 1 is not retired" in refused(shop, "restore", "default", "1")
    said(shop, "restore", "default", "3")
    said(shop, "promote", "default", "3")
    said(shop, "retire", "default", "2")
    assert "the history has none before it; promote one of: 1" in refused(shop, "rollback", "default")


def test_what_anything_stands_on_is_not_retired(shop: Path) -> None:
    said(shop, "promote", "default", "2")
    assert "version 2 is production; promote another first" in refused(shop, "retire", "default", "2")
    set_config(shop, 'needs_item = true\nranked = false\nmodel = "default"', 'needs_item = true\nmodel = "default@1"')
    assert "version 1 is what placements.similar.model stands on" in refused(shop, "retire", "default", "1")


def test_the_last_version_of_a_model_that_a_placement_needs_is_not_retired(shop: Path) -> None:
    said(shop, "retire", "default", "3")
    said(shop, "retire", "default", "1")
    assert "version 2 is what placements.home.model stands on" in refused(shop, "retire", "default", "2")


def test_deleted_files_are_gone_and_the_number_is_not_given_again(shop: Path) -> None:
    said(shop, "retire", "default", "3")
    assert "its files are deleted" in said(shop, "retire", "default", "3", "--delete")
    assert [one.name for one in (shop / "models" / "default" / "3").iterdir()] == ["manifest.json"]
    assert "is missing" in refused(shop, "restore", "default", "3")
    assert save_untrained(shop / "models").name == "4"
