"""Joining what candidate sources proposed into one list for each query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ranking.batch import Rows, Scores
from ranking.native import native
from ranking.room import longer

Mask = npt.NDArray[np.bool_]
Part = tuple[int, Scores, Rows]
"""What one source proposed for one query: the most that may stay, scores float32[n], rows int64[n] without -1."""

Merged = tuple[Rows, npt.NDArray[np.uint8], Scores]
"""One query's candidates: rows, the place of the source that proposed each, and that source's score."""


class Merger:
    """Merges over one catalogue of `size` rows. Not for concurrent callers: one mark an item says what was seen of it
    in the query at hand, which joins hundreds of rows in a fraction of the time that sorting them takes.
    """

    def __init__(self, size: int) -> None:
        self.marks: Rows = longer(np.zeros(0, np.int64), size, 0)
        self.query = 0

    def grow(self, size: int) -> None:
        """Rows that came behind the others."""
        self.marks = longer(self.marks, size - len(self.marks), 0)

    def merge(self, parts: Sequence[Part], allowed: Mask, excluded: Rows) -> Merged:
        """The candidates that may be answered, sources in the order of `parts`, the first proposal of a row standing.

        `allowed` bool[N]; `excluded` int64[m] may not be answered either.
        """
        self.query += 1
        size = sum(min(most, len(rows)) for most, _, rows in parts)
        out = np.empty(size, np.int64), np.empty(size, np.uint8), np.empty(size, np.float32)
        mark(self.marks, excluded, -self.query)
        filled = 0
        for place, (most, scores, rows) in enumerate(parts):
            filled = admit(scores, rows, most, place, allowed, self.marks, self.query, *out, filled)
        return out[0][:filled], out[1][:filled], out[2][:filled]


@native
def mark(marks: Rows, rows: Rows, value: int) -> None:
    for i in range(len(rows)):
        marks[rows[i]] = value


@native
def admit(
    scores: Scores, rows: Rows, most: int, place: int, allowed: Mask, marks: Rows, query: int,
    out_rows: Rows, out_source: npt.NDArray[np.uint8], out_found: Scores, filled: int,
) -> int:  # fmt: skip
    """Appends a source's rows from `filled` on; returns how many are filled then. Rows that an earlier source proposed
    count towards `most`: quotas do not depend on who else proposed an item.
    """
    stayed = 0
    for i in range(len(rows)):
        if stayed == most:
            break
        row = rows[i]
        if not allowed[row] or marks[row] == -query:
            continue
        stayed += 1
        if marks[row] != query:
            marks[row] = query
            out_rows[filled] = row
            out_source[filled] = place
            out_found[filled] = scores[i]
            filled += 1
    return filled
