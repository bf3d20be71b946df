"""What a shopper's recent items say by co-visitation: the one computation that both training and serving use."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ranking.native import native
from ranking.room import longer

RECENCY_DECAY = 0.9
"""Each step back in the history weighs this much of the step after it."""

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


class Covisits:
    """The neighbours of every item: `neighbors` int32[N, M] (-1 empty) with `scores` float32[N, M].

    Not for concurrent callers: where each row stands in the list at hand is kept in one array over the catalogue, which
    joins a thousand rows in a fraction of the time that sorting them takes.
    """

    def __init__(self, neighbors: npt.NDArray[np.int32], scores: Scores) -> None:
        self.place: Rows = np.zeros(0, np.int64)
        self.grow(neighbors, scores)

    def grow(self, neighbors: npt.NDArray[np.int32], scores: Scores) -> None:
        """The same with rows behind them that came since."""
        self.neighbors, self.scores = neighbors, scores
        self.place = longer(self.place, len(neighbors) - len(self.place), -1)

    def accumulate(self, history: Rows) -> tuple[Rows, Scores]:
        """Sums the neighbour scores of a history int64[L] (newest last, -1 empty), newer items weighing more.

        Returns (rows int64[n] distinct, in no order to rely on, sums float32[n]).
        """
        most = len(history) * self.neighbors.shape[1]
        rows, sums = np.empty(most, np.int64), np.empty(most, np.float64)
        count = accumulate(self.neighbors, self.scores, history, self.place, rows, sums)
        return rows[:count], sums[:count].astype(np.float32)

    def lookup(self, rows: Rows, known: Rows, sums: Scores) -> Scores:
        """The sums of `rows` (int64[C], -1 empty) from `accumulate`'s answer; 0 for a row that it does not hold."""
        out = np.zeros(len(rows), np.float32)
        lookup(rows, known, sums, self.place, out)
        return out


@native
def accumulate(
    neighbors: npt.NDArray[np.int32], scores: Scores, history: Rows, place: Rows,
    rows: Rows, sums: npt.NDArray[np.float64],
) -> int:  # fmt: skip
    """Fills rows and sums, and returns how many. `place` is -1 everywhere, before and after."""
    count = 0
    weight = 1.0
    for k in range(len(history) - 1, -1, -1):
        item = history[k]
        if item < 0:
            continue
        for m in range(neighbors.shape[1]):
            row = neighbors[item, m]
            if row < 0:
                continue
            at = place[row]
            if at < 0:
                at = count
                place[row] = at
                rows[at] = row
                sums[at] = 0.0
                count += 1
            sums[at] += weight * scores[item, m]
        weight *= RECENCY_DECAY
    for at in range(count):
        place[rows[at]] = -1
    return count


@native
def lookup(rows: Rows, known: Rows, sums: Scores, place: Rows, out: Scores) -> None:
    for at in range(len(known)):
        place[known[at]] = at
    for i in range(len(rows)):
        if rows[i] >= 0 and place[rows[i]] >= 0:
            out[i] = sums[place[rows[i]]]
    for at in range(len(known)):
        place[known[at]] = -1
