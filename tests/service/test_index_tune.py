"""`endcap index tune` on a real deployment: what it prints can be packed, and a mistake is one line."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import faiss
import pyarrow.parquet as pq
import pytest

from ranking.bundle import load_bundle
from ranking.scanned import ScannedIndex
from service.cli import main
from service.commands import index as command
from tests.ranking import own_models
from tests.ranking.test_pack import table


def test_the_printed_recipe_and_the_written_figures_are_the_same(
    deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the vectors of real shoppers where the store knows enough, and the index itself where one asks for it."""
    printed: list[str] = []
    monkeypatch.setattr(command, "FEW", 5)
    monkeypatch.setattr(command.console, "print", lambda text, **_: printed.append(str(text)))
    figures, ready = tmp_path / "figures.json", tmp_path / "ready.faiss"
    options = ["--k", "20", "--recall", "0.9", "--lists", "4", "--json", str(figures), "--index", str(ready)]
    assert main(["index", "tune", "--dir", str(deployment), *options]) == 0
    said = json.loads(figures.read_text())
    (part,) = (tomllib.loads(one)["index"] for one in printed if one.startswith("\n[index]"))
    assert (part["factory"], part["nprobe"]) == (said["best"]["factory"], said["best"]["nprobe"])
    assert said["best"] in said["tried"] and said["best"]["recall"] >= 0.9
    assert re.search(r"\d+ shoppers of the online store", said["queries"])
    assert {one["factory"] for one in said["tried"]} >= {"Flat", "IVF4,Flat"}
    assert faiss.read_index(part["file"]).ntotal == 200


def test_with_few_known_shoppers_the_queries_are_made_up_and_that_is_said(
    deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "FEW", 1000)
    figures = tmp_path / "figures.json"
    assert main(["index", "tune", "--dir", str(deployment), "--k", "20", "--json", str(figures)]) == 0
    assert "made up" in json.loads(figures.read_text())["queries"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "default@99"], "no such version; there are: "),
        (["--model", "nobody"], "no such version; there are: none"),
        (["--lists", "100"], "--lists 100: 200 items are enough for 5 lists at most"),
        (["--json", "/nowhere/at/all.json"], "no such directory"),
        (["missing.toml"], "missing.toml"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    deployment: Path, options: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "tune", "--dir", str(deployment), *options]) == 2
    error = capfd.readouterr().err.strip()
    assert said in error and error.startswith("endcap: ") and "\n" not in error


@pytest.mark.parametrize("recall", ["0", "1.5", "x"])
def test_a_recall_that_is_none_is_refused_by_the_parser(recall: str) -> None:
    with pytest.raises(SystemExit):
        main(["index", "tune", "--recall", recall])


PACK = """
name = "tuned"
[user]
feature_service = "default"
history = { source = "user_recent:item_ids", length = 5 }
dense = [
  { source = "user_profile:tenure_days", scale = 0.01 }, { source = "user_profile:orders" },
  { source = "user_profile:avg_price", scale = 0.1 },
]
categorical = [ { source = "user_profile:country", vocabulary = ["DE", "FR", "US"] } ]
[items]
file = "items.parquet"
dense = [ { source = "weight" }, { source = "size", vocabulary = ["S", "M", "L"] } ]
categorical = [ { source = "brand", vocabulary = ["a", "b", "c"] } ]
[index]
factory = "auto"
[user_tower]
module = "own_models.py:Tower"
[ranker]
module = "own_models.py:Ranker"
"""


def test_a_pack_file_may_leave_the_recipe_to_be_measured(deployment: Path, tmp_path: Path) -> None:
    """`factory = "auto"`: what is packed says which recipe it was, and is searched by it. Tuning a pack file by itself
    packs nothing."""
    shutil.copy(own_models.__file__, tmp_path)
    pq.write_table(table(), tmp_path / "items.parquet")
    spec, figures = tmp_path / "pack.toml", tmp_path / "figures.json"
    spec.write_text(PACK)
    assert main(["index", "tune", str(spec), "--dir", str(deployment), "--json", str(figures)]) == 0
    assert not (deployment / "models" / "tuned").exists()
    assert main(["bundle", "pack", str(spec), "--dir", str(deployment)]) == 0
    try:
        bundle = load_bundle(deployment / "models" / "tuned" / "1")
        recipe = bundle.manifest.index
        tried = {(one["factory"], one["nprobe"]) for one in json.loads(figures.read_text())["tried"]}
        assert recipe.factory != "auto" and recipe.factory in {factory for factory, _ in tried}
        assert isinstance(bundle.index, ScannedIndex) and bundle.index.file.nprobe == recipe.nprobe
    finally:
        shutil.rmtree(deployment / "models" / "tuned")
