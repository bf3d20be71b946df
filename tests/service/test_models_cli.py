"""`endcap models`: what it lists, what it changes, and what it refuses with one line and no change."""

from __future__ import annotations

import json
import re
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


def test_a_promotion_in_steps_is_begun_shown_and_ended_by_a_rollback(shop: Path) -> None:
    said(shop, "promote", "default", "1")
    told = said(shop, "promote", "default", "2", "--steps", "1,10,100", "--hold", "2m", "--rules", "p99=50ms,errors=1%")
    assert "version 2 gets 1 %, 10 %, 100 % of the shoppers, each for at least 120 s and 200 answers" in told
    assert "p99 50 ms, errors 1 %. The service that runs takes the steps, or goes back to 1" in told
    assert "rollout, 1 %" in said(shop, "list")
    assert "being rolled out, at 1 %" in refused(shop, "promote", "default", "3", "--steps", "50,100")
    assert "is rollout; promote another first" in refused(shop, "retire", "default", "2")
    assert "the rollout of 2 has ended" in said(shop, "rollback", "default")
    assert production(shop) == "1" and Registry(shop / "models").read("default").rollout is None


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--steps", "1,x"], "--steps 1,x: percentages are expected, such as 1,10,50,100"),
        (["--steps", "10,1,100"], "steps must grow and end at all shoppers"),
        (["--steps", "1,10"], "steps must grow and end at all shoppers"),
        (["--steps", "0,100"], "--steps 0,100, --hold 5m, --least 200: "),
        (["--steps", "100", "--hold", "5"], "--hold: '5' is no duration, such as 50ms, 30s or 5m"),
        (["--steps", "100", "--least", "0"], "--least 0: "),
        (["--steps", "100", "--rules", "p99=5"], "--rules p99=5: '5' is no duration"),
        (["--steps", "100", "--rules", "p98=5ms"], "'p98' is none of p99, errors, degraded, defaulted, overlap"),
        (["--steps", "100", "--rules", "errors=2"], "--rules errors=2: a share is expected, such as errors=1%"),
        (["--steps", "100", "--rules", "errors=1%,errors=2%"], "errors is there twice"),
        (["--steps", "100", "--alias", "candidate"], "--steps: goes with the alias production only"),
    ],
)
def test_a_slip_in_a_plan_is_one_line_that_names_it(shop: Path, options: list[str], line: str) -> None:
    said(shop, "promote", "default", "1")
    assert line in refused(shop, "promote", "default", "2", *options)


def test_what_a_placement_stands_on_is_not_retired(shop: Path) -> None:
    said(shop, "promote", "default", "3")
    for place, setting in (("home", "split = { 2 = 0.5, 3 = 0.5 }"), ("similar", 'shadow = { version = "1" }')):
        path = shop / "endcap.toml"
        path.write_text(re.sub(rf"(?m)^(\[placements.{place}\].*)$", rf"\1\n{setting}", path.read_text()))
    assert "placements.home.split" in refused(shop, "retire", "default", "2")
    assert "placements.similar.shadow" in refused(shop, "retire", "default", "1")
