"""Co-visitation: which items the same people touch in the same visit.

Greg Linden, Brent Smith, Jeremy York, "Amazon.com recommendations: item-to-item collaborative filtering", IEEE Internet
Computing 2003. A pair's count is divided by the two items' popularity to a power, so that what everyone touches is not
everything's neighbour; a power of 0.5 makes it a cosine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DAMPING = 0.5
SHRINK = 1.0
LONGEST = 100
"""Of a longer visit only the newest items count: pairs grow with the square, and a robot's visit says little."""

Ints = npt.NDArray[np.int64]


def neighbors(
    visit: Ints, item: Ints, items: int, keep: int, *, damping: float = DAMPING, shrink: float = SHRINK
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The `keep` best co-visited items of each of `items`, best first: rows int32[N, keep] (-1 empty), scores f32.

    Events are in order of time: visit[n] says which belong together, item[n] what was touched. A visit of k distinct
    items counts 1 / log2(1 + k) for each of its pairs: a long one tells less of each. The score of a pair seen together
    c times is its count / (popularity_a * popularity_b) ** damping * c / (c + shrink), popularity being visits.
    """
    visit, item = distinct(visit, item)
    rows, scores = np.full((items, keep), -1, np.int32), np.zeros((items, keep), np.float32)
    start = np.flatnonzero(np.diff(visit, prepend=visit[:1] - 1) != 0)
    size = np.diff(np.append(start, len(visit)))
    weight = 1 / np.log2(1 + size)
    of = np.repeat(np.arange(len(size)), size)  # the visit of each event, counted from 0
    by_item = np.argsort(item, kind="stable")
    ends = np.searchsorted(item[by_item], np.arange(items + 1))
    popularity = np.diff(ends)
    for row in np.flatnonzero(popularity):
        # Item by item, so that memory holds one item's pairs at a time.
        visits = of[by_item[ends[row] : ends[row + 1]]]
        lengths = size[visits]
        others = item[np.repeat(start[visits] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())]
        found, inverse = np.unique(others, return_inverse=True)
        together = np.bincount(inverse)
        total = np.bincount(inverse, np.repeat(weight[visits], lengths))
        score = total / (popularity[row] * popularity[found]) ** damping * (together / (together + shrink))
        score[found == row] = 0.0
        best = np.argsort(-score, kind="stable")[: min(keep, len(found) - 1)]
        rows[row, : len(best)], scores[row, : len(best)] = found[best], score[best]
    return rows, scores


def distinct(visit: Ints, item: Ints) -> tuple[Ints, Ints]:
    """Each visit's distinct items, visit by visit, newest first; of more than LONGEST the newest."""
    order = np.arange(len(visit) - 1, -1, -1)[np.argsort(visit[::-1], kind="stable")]
    visit, item = visit[order], item[order]
    by_item = np.lexsort((np.arange(len(item)), item, visit))
    again = (np.diff(visit[by_item], prepend=-1) == 0) & (np.diff(item[by_item], prepend=-1) == 0)
    first = np.sort(by_item[~again])
    visit, item = visit[first], item[first]
    start = np.flatnonzero(np.diff(visit, prepend=visit[:1] - 1) != 0)
    place = np.arange(len(visit)) - np.repeat(start, np.diff(np.append(start, len(visit))))
    return visit[place < LONGEST], item[place < LONGEST]
