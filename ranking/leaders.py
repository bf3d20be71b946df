"""The best of a query's candidates."""

from __future__ import annotations

import numpy as np

from ranking.batch import Rows, Scores
from ranking.native import native

FEW = 64
"""Places that are faster found by insertion than by sorting all."""


def leaders(scores: Scores, keep: int) -> Rows:
    """The places of the best `keep`, best first, equals in the order in which they stand."""
    if keep > FEW:
        return np.argsort(-scores, kind="stable")[:keep]
    out = np.empty(min(keep, len(scores)), np.int64)
    lead(scores, out)
    return out


@native
def lead(scores: Scores, out: Rows) -> None:
    """Fills `out` with the places of the best, by insertion."""
    filled = 0
    for c in range(len(scores)):
        if filled == len(out) and not scores[c] > scores[out[filled - 1]]:
            continue
        at = filled - 1 if filled == len(out) else filled
        while at > 0 and scores[c] > scores[out[at - 1]]:
            out[at] = out[at - 1]
            at -= 1
        out[at] = c
        filled = min(filled + 1, len(out))
