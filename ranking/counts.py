"""What has been counted of items, taken into a loaded item table: the ranker's inputs, and the order of `popular`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ranking.bundle import Bundle
from ranking.encoding import Encoder
from ranking.items import POPULARITY_OF, STATS_AT
from ranking.native import native
from ranking.values import number

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Counts = Mapping[str, str | float | bool | None]
"""Columns of the item schema and STATS_AT, of when they are."""


class LiveCounts:
    """Applies counts to one bundle's item table, many items at a time. For the engine's thread only."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        dense = bundle.manifest.item.dense
        self.encoder = Encoder(dense, ())
        self.places = [(place, one.source) for place, one in enumerate(dense) if one.vocabulary is None]
        # Compiled, or loaded, here and not between two batches.
        reorder(bundle.items.popular, bundle.items.popularity, np.zeros(0, np.int64), np.zeros(0))

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
            reorder(items.popular, items.popularity, rows[moved], popularity[moved])


def reorder(popular: Rows, popularity: Floats, rows: Rows, counts: Floats) -> None:
    """Takes in that distinct rows int64[n] have these counts float64[n]: `popular` int64[N] is in order of `popularity`
    float64[N] before and after, those alike by row. What lies between the places that rows leave and come to moves."""
    order = np.lexsort((rows, -counts))
    rows, counts = rows[order], counts[order]
    gone, come = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    find(popular, popularity, rows, popularity[rows], gone)
    find(popular, popularity, rows, counts, come)
    popularity[rows] = counts
    gone.sort()
    first, last = (min(gone[0], come[0]), max(gone[-1] + 1, come[-1])) if len(rows) else (0, 0)
    move(popular[first:last].copy(), gone - first, come - first, rows, popular[first:last])


@native
def find(popular: Rows, popularity: Floats, rows: Rows, counts: Floats, out: Rows) -> None:
    """The place of each of the rows in `popular`, did it have such a count: before the first that comes after it."""
    for i in range(len(rows)):
        low, high = 0, len(popular)
        while low < high:
            middle = (low + high) // 2
            row = popular[middle]
            if popularity[row] > counts[i] or (popularity[row] == counts[i] and row < rows[i]):
                low = middle + 1
            else:
                high = middle
        out[i] = low


@native
def move(before: Rows, gone: Rows, come: Rows, rows: Rows, out: Rows) -> None:
    """Fills `out` with `before` less the places in `gone`, and with the rows, each before the place in `come`."""
    at, place, left, added = 0, 0, 0, 0
    while at < len(out):
        until = len(before)
        if left < len(gone):
            until = min(until, gone[left])
        if added < len(rows):
            until = min(until, come[added])
        run = max(until - place, 0)
        for i in range(run):
            out[at + i] = before[place + i]
        at += run
        place += run
        if left < len(gone) and gone[left] <= place:
            place += 1
            left += 1
        elif added < len(rows) and come[added] <= place:
            out[at] = rows[added]
            at += 1
            added += 1
