"""What a shopper's recent items say by co-visitation: the one function that both training and serving call."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RECENCY_DECAY = 0.9
"""Each step back in the history weighs this much of the step after it."""


def accumulate(
    history: npt.NDArray[np.int64], neighbors: npt.NDArray[np.int32], scores: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Sums the neighbour scores of a history, newer items weighing more.

    history int64[L], newest last, -1 empty; neighbors int32[N, M], -1 empty; scores float32[N, M].
    Returns (rows int64[n] ascending and distinct, sums float32[n]).
    """
    known = history[history >= 0]
    decay = RECENCY_DECAY ** np.arange(len(known) - 1, -1, -1, dtype=np.float32)
    rows = neighbors[known].ravel()
    weights = (scores[known] * decay[:, None]).ravel()
    distinct, inverse = np.unique(rows, return_inverse=True)
    sums = np.bincount(inverse, weights, len(distinct)).astype(np.float32)
    first = int(len(distinct) > 0 and distinct[0] < 0)
    return distinct[first:].astype(np.int64), sums[first:]


def lookup(
    rows: npt.NDArray[np.int64], known: npt.NDArray[np.int64], sums: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The sums of `rows` (int64[C]) from `accumulate`'s answer; 0 for a row that it does not hold."""
    if not len(known):
        return np.zeros(len(rows), np.float32)
    place = np.minimum(np.searchsorted(known, rows), len(known) - 1)
    return np.where(known[place] == rows, sums[place], np.float32(0))
