"""The nearest-item index. The only module that imports faiss.

Scores are inner products. Row numbers are the index's ids (int64); -1 marks a place that nothing filled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import faiss
import msgspec
import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class IndexRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the index is made: a faiss factory string (`Flat`, `IVF256,Flat`, …) and how many lists a search probes."""

    factory: str = "Flat"
    nprobe: int = 1
    metric: Literal["inner_product"] = "inner_product"


class Index(Protocol):
    """What the engine asks of an index, on whatever device it lives."""

    def search(self, queries: Scores, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        """The k best rows for each query: scores float32[B, k] (descending), rows int64[B, k], -1 where fewer.

        `allowed` (bool[N]) restricts every query of this call to those rows, inside the search.
        """
        ...

    def add(self, vectors: Scores, count: int) -> None:
        """Takes in the last `count` of all vectors float32[N, E]; those before are in."""
        ...


def build_index(vectors: Scores, recipe: IndexRecipe) -> Any:
    """A trained faiss index over float32[N, E], one thread, so that the same vectors give the same index."""
    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(vectors.shape[1], recipe.factory, faiss.METRIC_INNER_PRODUCT)
    vectors = np.ascontiguousarray(vectors, np.float32)
    if not index.is_trained:
        index.train(vectors)
    index.add(vectors)
    return index


def write_index(index: Any, path: Path) -> None:
    faiss.write_index(index, str(path))


def read_index(path: Path) -> Any:
    """Reads an index whose hash the caller has already checked: a faiss file is code's input, not mere data."""
    return faiss.read_index(str(path))


class CpuIndex:
    """A faiss index in memory. Not for concurrent callers: faiss keeps an OpenMP pool for each calling thread."""

    def __init__(self, index: Any, vectors: Scores, nprobe: int) -> None:
        self.index, self.vectors = index, vectors
        if isinstance(index, faiss.IndexIVF):
            index.nprobe = nprobe
        self.nprobe = nprobe

    @property
    def shape(self) -> tuple[int, int]:
        return self.index.ntotal, self.index.d

    def search(self, queries: Scores, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        k = min(k, self.index.ntotal)
        if allowed is None:
            scores, rows = self.index.search(queries, k)
            return scores, rows
        passing = np.flatnonzero(allowed)
        # Few rows pass, or few of a probed list would: scanning the passing rows is exact, fills k, and costs less
        # than probing every list for them.
        if len(passing) <= max(4 * k, self.index.ntotal // 8):
            return exact_search(self.vectors, passing, queries, k)
        scores, rows = self.index.search(queries, k, params=self._restricted(allowed))
        if (rows[:, -1] < 0).any():
            return exact_search(self.vectors, passing, queries, k)
        return scores, rows

    def add(self, vectors: Scores, count: int) -> None:
        self.index.add(vectors[-count:])
        self.vectors = vectors

    def _restricted(self, allowed: Mask) -> Any:
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        if isinstance(self.index, faiss.IndexIVF):
            return faiss.SearchParametersIVF(sel=selector, nprobe=self.nprobe)
        return faiss.SearchParameters(sel=selector)


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


class GpuIndex:
    """The same index on a GPU, for one caller only: faiss GPU indexes are not safe for concurrent readers."""

    def __init__(self, host: CpuIndex, device: int = 0) -> None:
        self.host = host
        self.resources = faiss.StandardGpuResources()
        self.index = faiss.index_cpu_to_gpu(self.resources, device, host.index)

    def search(self, queries: Scores, k: int, allowed: Mask | None = None) -> tuple[Scores, Rows]:
        # faiss refuses a selector on its GPU indexes, and k above 2,048.
        if allowed is not None or k > 2048:
            return self.host.search(queries, k, allowed)
        scores, rows = self.index.search(queries, min(k, self.index.ntotal))
        return scores, rows

    def add(self, vectors: Scores, count: int) -> None:
        self.host.add(vectors, count)
        self.index.add(vectors[-count:])


def gpu_available() -> bool:
    """Whether this build of faiss can reach a GPU."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def one_thread() -> None:
    """Keeps faiss, called from this thread, on one core: its OpenMP pool belongs to the calling thread."""
    faiss.omp_set_num_threads(1)
