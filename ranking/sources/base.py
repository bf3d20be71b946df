"""What a candidate source is. Each source is one file; `service/app.py` lists those that a deployment offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ranking.batch import Query, Rows, Scores
from ranking.bundle import Bundle
from ranking.covisit import Covisits
from ranking.index import Index

Mask = npt.NDArray[np.bool_]


class Batch:
    """One micro-batch, encoded. Everything is indexed by the query's place in the batch."""

    def __init__(
        self, queries: Sequence[Query], history: Rows, users: Scores, allowed: list[Mask | None], covisits: Covisits
    ) -> None:
        self.queries = queries
        self.history = history  # int64[B, L]
        self.users = users  # float32[B, E]
        self.allowed = allowed  # bool[N] where retrieval must be restricted, else None
        self._covisits, self._covisited = covisits, dict[int, tuple[Rows, Scores]]()

    def probes(self, which: Sequence[int]) -> list[float]:
        """The share of an index's lists that each of these queries looks into."""
        return [self.queries[i].probe for i in which]

    def covisited(self, i: int) -> tuple[Rows, Scores]:
        """`Covisits.accumulate` of one query's history: computed once, for the source and for the signal."""
        if i not in self._covisited:
            self._covisited[i] = self._covisits.accumulate(self.history[i])
        return self._covisited[i]


class Source(Protocol):
    """Proposes items. Stock, exclusions and filters are checked again after it; it need only try to fill k."""

    name: str

    def retrieve(self, bundle: Bundle, index: Index, batch: Batch, which: Sequence[int], k: int) -> list[Found]:
        """For each place in `which`, up to k (scores float32[n], rows int64[n]), best first, no -1 and no repeats."""
        ...


Found = tuple[Scores, Rows]

NOTHING: Found = (np.zeros(0, np.float32), np.zeros(0, np.int64))


def found(scores: Scores, rows: Rows) -> Found:
    """Drops the places that nothing filled."""
    filled = rows >= 0
    return scores[filled], rows[filled]


def search(
    index: Index, vectors: Scores, allowed: Sequence[Mask | None], k: int, probes: Sequence[float]
) -> list[Found]:
    """One search for all queries without a mask together, one each for the others. vectors float32[n, E]; `probes` the
    share of the index's lists that each looks into."""
    results: list[Found] = [NOTHING] * len(vectors)
    free = [i for i, mask in enumerate(allowed) if mask is None and probes[i] == 1.0]
    if free:
        scores, rows = index.search(vectors[free] if len(free) < len(vectors) else vectors, k)
        for i, one_scores, one_rows in zip(free, scores, rows, strict=True):
            results[i] = found(one_scores, one_rows)
    for i, mask in enumerate(allowed):
        if mask is not None or probes[i] != 1.0:
            scores, rows = index.search(vectors[i : i + 1], k, mask, probes[i])
            results[i] = found(scores[0], rows[0])
    return results
