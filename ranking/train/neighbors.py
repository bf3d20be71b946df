"""Co-visitation: which items the same people touch within a short time.

Greg Linden, Brent Smith, Jeremy York, "Amazon.com recommendations: item-to-item collaborative filtering", IEEE Internet
Computing 2003. A pair's count is divided by the two items' popularity to a power, so that what everyone touches is not
everything's neighbour; a power of 0.5 is the cosine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DAMPING = 0.5
LONGEST = 100
"""Of a longer visit only the newest items count: pairs grow with the square, and a robot's visit says little."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def neighbors(
    visit: Ints, item: Ints, items: int, keep: int, *, damping: float = DAMPING, shrink: float = 1.0
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The `keep` best co-visited items of each of `items`, best first: rows int32[N, keep] (-1 empty), scores f32.

    Events are in order of time: visit[n] says which belong together, item[n] what was touched. A visit of k distinct
    items counts 1 / log2(1 + k) for each of its pairs: a long one tells less of each. The score of a pair is
    count / (popularity_a * popularity_b) ** damping, shrunk by count / (count + shrink).
    """
    visit, item = distinct(visit, item)
    visits = np.unique(visit, return_inverse=True)[1]
    sizes = np.bincount(visits)
    popularity = np.bincount(item, minlength=items).astype(np.float64)
    left, right, weight = pairs(item, sizes)
    code, inverse = np.unique(left * items + right, return_inverse=True)
    count = np.bincount(inverse, minlength=len(code)).astype(np.float64)
    total = np.bincount(inverse, weight, minlength=len(code))
    left, right = code // items, code % items
    score = total / (popularity[left] * popularity[right]) ** damping * (count / (count + shrink))
    return best(left, right, score, items, keep)


def distinct(visit: Ints, item: Ints) -> tuple[Ints, Ints]:
    """Each visit's distinct items, visit by visit; of more than LONGEST the newest."""
    newest_first = np.arange(len(visit) - 1, -1, -1)
    order = newest_first[np.argsort(visit[::-1], kind="stable")]
    visit, item = visit[order], item[order]
    first = np.sort(np.unique(np.stack([visit, item]), axis=1, return_index=True)[1])
    visit, item = visit[first], item[first]
    start = np.flatnonzero(np.diff(visit, prepend=visit[:1] - 1) != 0)
    place = np.arange(len(visit)) - np.repeat(start, np.diff(np.append(start, len(visit))))
    return visit[place < LONGEST], item[place < LONGEST]


def pairs(item: Ints, sizes: Ints) -> tuple[Ints, Ints, Floats]:
    """Every ordered pair of different items of one visit, visits of one size at a time."""
    starts = np.cumsum(sizes) - sizes
    parts: list[tuple[Ints, Ints, Floats]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for size in np.unique(sizes[sizes > 1]):
        block = item[starts[sizes == size][:, None] + np.arange(size)]  # [visits, size]
        a, b = np.nonzero(~np.eye(size, dtype=bool))
        parts.append(
            (block[:, a].ravel(), block[:, b].ravel(), np.full(block.shape[0] * len(a), 1 / np.log2(1 + size)))
        )
    left, right, weight = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return left, right, weight


def best(
    left: Ints, right: Ints, score: Floats, items: int, keep: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    order = np.lexsort((right, -score, left))
    left, right, score = left[order], right[order], score[order]
    place = np.arange(len(left)) - np.searchsorted(left, left)
    kept = place < keep
    rows = np.full((items, keep), -1, np.int32)
    scores = np.zeros((items, keep), np.float32)
    rows[left[kept], place[kept]] = right[kept]
    scores[left[kept], place[kept]] = score[kept]
    return rows, scores
