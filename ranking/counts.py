"""What has been counted of items, taken into a loaded item table: the ranker's inputs, and the order of `popular`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ranking.bundle import Bundle
from ranking.encoding import Encoder, number
from ranking.items import POPULARITY_OF, STATS_AT, ItemTable

Rows = npt.NDArray[np.int64]
Counts = Mapping[str, str | float | bool | None]
"""Columns of the item schema and STATS_AT, of when they are."""


class LiveCounts:
    """Applies counts to one bundle's item table, many items at a time. For the engine's thread only."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        dense = bundle.manifest.item.dense
        self.encoder = Encoder(dense, ())
        self.places = [(place, one.source) for place, one in enumerate(dense) if one.vocabulary is None]

    def apply(self, counts: Mapping[str, Counts]) -> None:
        """What is not said of an item stays as it is; what is said of an unknown one is nothing."""
        items = self.bundle.items
        known = [(row, facts) for name, facts in counts.items() if (row := items.row_of.get(name, -1)) >= 0]
        rows = np.array([row for row, _ in known], np.int64)
        if not known:
            return
        raw = np.full((len(rows), items.dense.shape[1]), np.nan)
        for place, name in self.places:
            raw[:, place] = [number(facts.get(name)) for _, facts in known]
        items.dense[rows] = np.where(np.isnan(raw), items.dense[rows], self.encoder.dense(raw))
        items.stats_at[rows] = [number(facts[STATS_AT]) for _, facts in known]
        if items.counted:
            popularity = np.array([sum(number(facts.get(name)) for name in POPULARITY_OF) for _, facts in known])
            moved = (popularity != items.popularity[rows]) & ~np.isnan(popularity)
            items.popularity[rows[moved]] = popularity[moved]
            reorder(items, rows[moved])


def reorder(items: ItemTable, rows: Rows) -> None:
    """Puts these rows where they belong in `popular`, whose other rows are in order: cheaper than sorting all."""
    if not len(rows):
        return
    moved = np.zeros(len(items), bool)
    moved[rows] = True
    others = items.popular[~moved[items.popular]]
    rows = rows[np.argsort(places(items, rows))]
    items.popular[:] = np.insert(others, np.searchsorted(places(items, others), places(items, rows)), rows)


def places(items: ItemTable, rows: Rows) -> Rows:
    """What `popular` is in order of: the more popular first, and of those alike the one that was there first."""
    return rows - (items.popularity[rows].astype(np.int64) << 32)
