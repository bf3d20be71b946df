"""`make bench-items` on a small catalogue: every kind of change does what it says, in a worker of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra import bench_items, growth
from infra.bench_growth import loaded

ITEMS = 3000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("items")
    spec = growth.write(home, growth.embeddings(ITEMS))
    return growth.packed(spec, bench_items.INDEX.format(lists=8), home / "models").parents[1]


def test_each_kind_of_change_is_taken_in(models: Path) -> None:
    path = loaded(models)[0]
    made = dict(bench_items.kinds_of(ITEMS, 2))
    for changes in made.values():
        bench_items.figures(path, growth.shoppers(ITEMS, 2), changes)
    items, many = path.bundle.items, bench_items.MANY
    assert len(items) == ITEMS + 2 + 2 * many
    price, category, gone, removed = (
        [name for change in made[kind] for name, _ in change]
        for kind in ("a price", "a category", "sold out", "removed")
    )
    assert (items.price[items.rows(price)] == 9).all() and not items.in_stock[items.rows(gone)].any()
    assert {items.categories[code] for code in items.category[items.rows(category)]} == {"Sundials"}
    assert not len(items.rows(removed))
    assert np.count_nonzero(items.popularity) == 2 * many


def test_a_worker_tells_the_figures_of_each_kind(models: Path) -> None:
    found = bench_items.in_worker(models, ITEMS, 2)
    assert list(found["kinds"]) == [name for name, _ in bench_items.kinds_of(ITEMS, 2)]
    assert all(len(figures) == len(bench_items.HEAD) - 2 for figures in found["kinds"].values())
