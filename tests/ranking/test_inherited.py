"""Counts that one loaded version has from another: as if the store had said them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import structs

from ranking.bundle import Bundle, load_bundle
from ranking.counts import LiveCounts
from ranking.engine import BatchPath
from ranking.inherited import inherit
from ranking.items import STATS_AT
from ranking.live import Change
from ranking.train.save import save
from service.app import SOURCES
from tests.ranking.factory import ITEM_COUNTERS, make_trained

SIZE, LATER = 300, 3e9


def bundle(home: Path, size: int = SIZE, scale: float | None = None) -> Bundle:
    """With statistics of now, its columns encoded in its own way."""
    trained = make_trained(size)
    if scale is not None:
        dense = tuple(structs.replace(one, mean=one.mean + 1, scale=scale) for one in trained.item.dense)
        object.__setattr__(trained, "item", structs.replace(trained.item, dense=dense))
    return load_bundle(save(trained, home, "default", {}))


def counts(size: int = SIZE) -> list[Change]:
    """Of every third item; every count up to a million."""
    rng = np.random.default_rng(0)
    rows = range(0, size, 3)
    said = [dict(zip(ITEM_COUNTERS, rng.integers(0, 10**6, len(ITEM_COUNTERS)).tolist(), strict=True)) for _ in rows]
    return [(f"i{row:05d}", {**one, STATS_AT: LATER + row}) for row, one in zip(rows, said, strict=True)]


def test_what_is_inherited_is_what_the_store_says(tmp_path: Path) -> None:
    """Whichever way the two versions encode it; items that only the heir has are named, and stay as they are."""
    old, heir, told = bundle(tmp_path), bundle(tmp_path, SIZE + 20, 0.3), bundle(tmp_path, SIZE + 20, 0.3)
    LiveCounts(old).apply(dict(counts()))
    LiveCounts(told).apply(dict(counts()))
    assert inherit(heir, old, ITEM_COUNTERS) == [f"i{row:05d}" for row in range(SIZE, SIZE + 20)]
    np.testing.assert_allclose(heir.items.dense, told.items.dense, atol=1e-6)
    for name in ("stats_at", "popularity", "popular"):
        np.testing.assert_array_equal(getattr(heir.items, name), getattr(told.items, name))
    assert heir.items.stats_at.max() == LATER + SIZE - 3


def test_what_the_heir_knows_of_later_stays(tmp_path: Path) -> None:
    old, heir = bundle(tmp_path), bundle(tmp_path, scale=0.3)
    LiveCounts(heir).apply({"i00001": {**dict.fromkeys(ITEM_COUNTERS, 9), STATS_AT: LATER}})
    before = heir.items.dense.copy()
    LiveCounts(old).apply({"i00001": {**dict.fromkeys(ITEM_COUNTERS, 5), STATS_AT: LATER - 1}})
    assert inherit(heir, old, ITEM_COUNTERS) == []
    np.testing.assert_array_equal(heir.items.dense, before)


@pytest.mark.parametrize("lacks", ["a column", "its scale"])
def test_where_the_other_cannot_tell_nothing_is_taken(tmp_path: Path, lacks: str) -> None:
    old, heir = bundle(tmp_path), bundle(tmp_path)
    LiveCounts(old).apply(dict(counts()))
    first, second, *rest = old.manifest.item.dense
    other = structs.replace(second, source="another") if lacks == "a column" else structs.replace(second, scale=0.0)
    item = structs.replace(old.manifest.item, dense=(first, other, *rest))
    old.manifest = structs.replace(old.manifest, item=item)
    before = heir.items.stats_at.copy()
    assert inherit(heir, old, ITEM_COUNTERS) is None
    np.testing.assert_array_equal(heir.items.stats_at, before)


def test_an_item_that_came_or_went_meanwhile_harms_nothing(tmp_path: Path) -> None:
    old, heir = bundle(tmp_path), bundle(tmp_path)
    path = BatchPath(old, SOURCES, torch.device("cpu"))
    path.change([("new", {"title": "New", "category": "Toys"}), ("i00003", {"removed": True})])
    path.change(counts())
    assert inherit(heir, old, ITEM_COUNTERS) == ["i00003"]
    assert heir.items.stats_at[6] == LATER + 6
