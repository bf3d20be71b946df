"""The item table: which ids it knows, and of when the statistics of its items are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from ranking.bundle import load_bundle
from ranking.items import NEVER, STATS_AT
from ranking.train.save import save
from tests.ranking.factory import make_bundle, make_trained


def test_without_times_the_statistics_are_of_when_the_bundle_was_made(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path, 30))
    assert (bundle.items.stats_at == bundle.manifest.created_at.timestamp()).all()


def test_the_oldest_statistics_of_some_items_and_of_none(tmp_path: Path) -> None:
    trained = make_trained(4)
    times = pa.array([2_000_000, 1_500_000, None, 3_000_000], pa.timestamp("us", "UTC"))
    object.__setattr__(trained, "items", trained.items.append_column(STATS_AT, times))
    items = load_bundle(save(trained, tmp_path, "default", {})).items
    for rows, oldest in (([0, 1, 3], 1.5), ([3, 2], 3.0), ([2], NEVER), ([], NEVER)):
        assert items.oldest_stats(np.array(rows, np.int64)) == oldest


def test_ids_that_no_item_has_are_told_in_the_order_in_which_they_were_asked(tmp_path: Path) -> None:
    items = load_bundle(make_bundle(tmp_path, 30)).items
    first, last = items.ids[0], items.ids[29]
    assert items.unknown([last, "z", first, "a", ""]) == ["z", "a", ""]
    items.row_of.pop(first)
    assert items.unknown([last, first]) == [first] and items.unknown(()) == []
