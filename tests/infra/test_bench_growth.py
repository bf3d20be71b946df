"""`make bench-growth` on a small catalogue: what it packs is what was tuned, and every figure of its table is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra import bench_growth, growth

ITEMS = 3000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("growth") / str(ITEMS)
    bench_growth.make(found, ITEMS, 0.9)
    return found


def test_the_packed_bundle_is_searched_by_the_recipe_that_was_tuned(home: Path) -> None:
    tuned = json.loads((home / "tuned.json").read_text())
    path, times = bench_growth.loaded(home / "models", growth.shoppers(ITEMS, 1))
    recipe = path.bundle.manifest.index
    assert (recipe.factory, recipe.nprobe) == (tuned["best"]["factory"], tuned["best"]["nprobe"])
    assert tuned["best"]["recall"] >= 0.9 and min(times.values()) > 0


def test_a_request_has_as_many_candidates_and_features_as_are_asked_for(home: Path) -> None:
    path, _ = bench_growth.loaded(home / "models")
    asked = growth.shoppers(ITEMS, 2, candidates=70)
    _, batch = path.encode(asked)
    assert path.retrieve(batch, path.exclude(batch)).rows.shape == (2, 70)
    wide, _ = bench_growth.loaded(bench_growth.with_features(home, 50))
    assert wide.encode(growth.shoppers(ITEMS, 2, features=50))[0].dense.shape == (2, 49)
    assert len(growth.answers(wide, growth.shoppers(ITEMS, 3, features=50))) == 3


def test_the_table_has_a_row_for_each_size_and_each_thing_that_is_varied(home: Path) -> None:
    path, times = bench_growth.loaded(home / "models", growth.shoppers(ITEMS, 1))
    said = bench_growth.stages_of(path, ITEMS, 8, batch=4)
    assert said["cpu_us"] > 0 and set(said["stages_us"]) == set(bench_growth.STAGES)
    size = {"items": ITEMS, **json.loads((home / "tuned.json").read_text()), **times, **said}
    found = {"sizes": [{**size, "workers": {"pss_mib": 1.0, "rss_mib": 1.0}}], "rest": [{"batch": 4, **said}]}
    sizes, batches = bench_growth.as_markdown(found).split("\n\n")
    assert sizes.splitlines()[2].startswith("| 3,000 | ") and batches.splitlines()[2].startswith("| 4 | ")
