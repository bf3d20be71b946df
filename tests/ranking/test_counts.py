"""Live counts in a loaded bundle: the order of `popular` and the ranker's inputs follow them, and nothing else does."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ranking.batch import Query
from ranking.bundle import load_bundle
from ranking.counts import reorder
from ranking.engine import BatchPath
from ranking.items import STATS_AT, encode_items
from ranking.live import Change
from ranking.train.save import save
from service.app import SOURCES
from tests.ranking.factory import ITEM_COUNTERS, item_columns, item_schema, make_bundle, make_trained

SIZE = 300


@pytest.fixture
def path(tmp_path: Path) -> BatchPath:
    return BatchPath(load_bundle(make_bundle(tmp_path, SIZE)), SOURCES, torch.device("cpu"))


def counts(name: str, at: float = 1e9, **changes: int) -> Change:
    return name, {**dict.fromkeys(ITEM_COUNTERS, 0), **changes, STATS_AT: at}


def popular(path: BatchPath, count: int = 5) -> list[str]:
    (found,) = path.recommend([Query({}, {"popular": 50}, count, ranked=False)], lambda stage: nullcontext())
    return [path.bundle.items.ids[row] for row in found.rows]


def score(path: BatchPath, item: str) -> float:
    asked = Query({}, {"request": 1}, 1, rank=[item])
    (found,) = path.recommend([asked], lambda stage: nullcontext())
    return float(found.scores[0])


def test_what_is_bought_most_comes_first_among_popular_ones(path: BatchPath) -> None:
    first, last = popular(path)[0], path.bundle.items.ids[path.bundle.items.popular[-1]]
    path.change([(last, {"in_stock": True})])
    path.change([counts(last, events_30d=5_000, purchases_30d=5_000)])
    assert popular(path)[:2] == [last, first]
    path.change([counts(last, events_30d=1)])
    assert popular(path)[0] == first


def test_the_ranker_reads_live_counts_as_training_encodes_them(path: BatchPath) -> None:
    """Also those of an item that came after training; an item of which nothing is said stays as it was."""
    items, item, other = path.bundle.items, "i00011", "i00012"
    before, unmoved = score(path, item), score(path, other)
    said = {name: 7 * n for n, name in enumerate(ITEM_COUNTERS, 1)}
    path.change([counts(item, at=123.5, **said), ("nobody", {"events_24h": 1, STATS_AT: 1.0})])
    table = item_columns(SIZE, np.random.default_rng(0)).slice(0, 1).to_pydict()
    like: Any = {**table, "price": [None], **{name: [value] for name, value in said.items()}}
    dense, _ = encode_items(pa.table(like, item_columns(1, np.random.default_rng(0)).schema), item_schema())
    row = items.row_of[item]
    assert np.array_equal(items.dense[row, 1:], dense[0, 1:]) and items.stats_at[row] == 123.5
    assert score(path, item) != before and score(path, other) == unmoved
    path.change([("new", {"title": "A new one", "category": "Toys"})])
    blank = score(path, "new")
    path.change([counts("new", events_24h=50)])
    assert score(path, "new") != blank and path.bundle.items.stats_at[SIZE] == 1e9


def test_the_order_after_many_changes_is_that_of_sorting_everything(path: BatchPath) -> None:
    rng = np.random.default_rng(3)
    for turn in range(60):
        changes: list[Change] = [
            counts(f"i{rng.integers(SIZE):05d}", events_30d=int(rng.integers(0, 12)))
            for _ in range(rng.integers(1, 40))
        ]
        if turn % 20 == 0:
            changes.append((f"new{turn}", {"title": "x", "category": "Toys"}))
        path.change(changes)
    items = path.bundle.items
    assert np.array_equal(items.popular, np.argsort(-items.popularity, kind="stable"))


def test_a_popularity_of_the_bundles_own_is_left_alone(tmp_path: Path) -> None:
    """Revenue, say: counts of some items among it would be of another scale."""
    trained = make_trained(SIZE)
    own = trained.items.column("popularity").to_numpy() * 1000.0
    table = trained.items.set_column(trained.items.column_names.index("popularity"), "popularity", [own])
    object.__setattr__(trained, "items", table)
    path = BatchPath(load_bundle(save(trained, tmp_path, "default", {})), SOURCES, torch.device("cpu"))
    before = popular(path)
    path.change([counts(before[0], events_30d=1)])
    assert popular(path) == before and not path.bundle.items.counted


@pytest.mark.parametrize("columns", ["grown", "as it was"])
def test_only_the_rows_that_changed_are_laid_out_anew(path: BatchPath, columns: str) -> None:
    asked: list[Any] = []
    lay_out = path.models.lay_out

    def noted(items: Any, rows: Any = None) -> None:
        asked.append(None if rows is None else rows.tolist())
        lay_out(items, rows)

    path.models.lay_out = noted  # type: ignore[method-assign]
    new: list[Change] = [("new", {"title": "x", "category": "Toys"})] if columns == "grown" else []
    path.change([counts("i00007"), *new, ("i00003", {"price": 2.0}), ("unknown", {"price": 1.0})])
    path.change([("unknown", {"price": 1.0})])
    assert asked == [[3, 7, *([SIZE] if new else [])]]


@pytest.mark.parametrize("seed", range(30))
def test_the_order_is_that_of_sorting_whatever_moves_wherever(seed: int) -> None:
    """None, one or all of the rows, up, down or to where they are, and many of them alike."""
    rng = np.random.default_rng(seed)
    size, most = int(rng.integers(1, 40)), int(rng.integers(1, 6))
    popularity = rng.integers(0, most, size) / 2
    popular = np.argsort(-popularity, kind="stable")
    for _ in range(20):
        rows = rng.permutation(size)[: rng.integers(0, size + 1)]
        counts = rng.integers(0, most, len(rows)) / 2
        expected = popularity.copy()
        expected[rows] = counts
        reorder(popular, popularity, rows, counts)
        assert np.array_equal(popularity, expected)
        assert popular.tolist() == np.argsort(-expected, kind="stable").tolist()
