"""The index of the nearest items by our own scan, and exact search among some of them: neither needs faiss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ranking.lists import Lists
from ranking.scan import InvertedFile

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class ScannedIndex:
    """A flat or inverted file index on one core of the CPU, by a scan of our own (`ranking.scan`). Not for concurrent
    callers. It takes the place of faiss's copy of the vectors."""

    def __init__(self, file: InvertedFile, vectors: Scores) -> None:
        self.file, self.vectors, self.known = file, vectors, len(vectors)
        self.nprobe = file.nprobe

    @property
    def shape(self) -> tuple[int, int]:
        return self.vectors.shape[0], self.vectors.shape[1]

    def search(self, queries: Scores, k: int, allowed: Mask | None = None, probe: float = 1.0) -> tuple[Scores, Rows]:
        k = min(k, len(self.vectors))
        scores, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        for i, query in enumerate(queries):
            found = self._one(query, k, allowed, probe)
            if allowed is not None and len(found[0]) < k:
                passing = np.flatnonzero(allowed)
                scores[i], rows[i] = (one[0] for one in exact_search(self.vectors, passing, query[None], k))
            else:
                scores[i, : len(found[0])], rows[i, : len(found[1])] = found
        return scores, rows

    def _one(self, query: Scores, k: int, allowed: Mask | None, probe: float) -> tuple[Scores, Rows]:
        scores, rows = self.file.best(query, k, allowed, share_of(self.file.nprobe, probe))
        if len(self.vectors) == self.known:
            return scores, rows
        # Items that came since are few, and in no list.
        late = np.arange(self.known, len(self.vectors))
        late = late if allowed is None else late[allowed[late]]
        scores = np.concatenate([scores, self.vectors[late] @ query])
        rows = np.concatenate([rows, late])
        best = np.argsort(-scores, kind="stable")[:k]
        return scores[best], rows[best]

    def add(self, vectors: Scores, count: int) -> None:
        self.vectors, self.file.vectors = vectors, vectors[: self.known]


def open_lists(directory: Path, vectors: Scores, nprobe: int) -> ScannedIndex:
    """The index that `write_lists` wrote. Raises ValueError where it is not one of these vectors."""
    lists = Lists.load(directory, (vectors.shape[0], vectors.shape[1]))
    return ScannedIndex(InvertedFile(lists, vectors, nprobe), vectors)


def exact_search(vectors: Scores, passing: Rows, queries: Scores, k: int) -> tuple[Scores, Rows]:
    """The k best of the passing rows by brute force; the same shape of answer as a search."""
    scores = queries @ vectors[passing].T
    take = min(k, len(passing))
    best = np.argpartition(-scores, take - 1, axis=1)[:, :take] if 0 < take < len(passing) else None
    if best is None:
        best = np.broadcast_to(np.arange(len(passing)), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, 1)
    out_scores = np.full((len(queries), k), -np.inf, np.float32)
    out_rows = np.full((len(queries), k), -1, np.int64)
    out_scores[:, :take] = np.take_along_axis(scores, best, 1)
    out_rows[:, :take] = passing[best]
    return out_scores, out_rows


def share_of(nprobe: int, probe: float) -> int:
    """How many lists a share of them is; at least one."""
    return max(1, round(nprobe * probe))
