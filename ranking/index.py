"""The nearest-item index. The only module that imports faiss.

Scores are inner products. Row numbers are the index's ids (int64); -1 marks a place that nothing filled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ranking.errors import RankingError
from ranking.lists import PARTS, Lists
from ranking.manifest import IndexRecipe as IndexRecipe
from ranking.resident.search import TorchIndex
from ranking.scan import InvertedFile
from ranking.scanned import ScannedIndex, exact_search, share_of


class NoFaiss:
    """Stands where faiss is not installed, as on a GPU, where torch searches."""

    def __getattr__(self, name: str) -> Any:
        raise RankingError(f"this needs faiss ({name}), which is not installed: pip install faiss-cpu")


try:
    import faiss
except ModuleNotFoundError:
    faiss = NoFaiss()

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


TRAINED_ON, BESIDE = 1 << 18, 50_000
"""Vectors that lists are trained on, unless that were fewer than 64 a list; and those that other encodings are."""


class Index(Protocol):
    """What the engine asks of an index, on whatever device it lives. `nprobe` is how many lists a search looks into; 1
    where there are none."""

    nprobe: int

    def search(self, queries: Scores, k: int, allowed: Mask | None = None, probe: float = 1.0) -> tuple[Scores, Rows]:
        """The k best rows for each query: scores float32[B, k] (descending), rows int64[B, k], -1 where fewer.

        `allowed` (bool[N]) restricts every query of this call to those rows, inside the search. `probe` is the share of
        the recipe's `nprobe` lists that is looked into; an index without lists takes no notice.
        """
        ...

    def add(self, vectors: Scores, count: int) -> None:
        """Takes in the last `count` of all vectors float32[N, E]; those before are in."""
        ...


def build_index(vectors: Scores, recipe: IndexRecipe) -> Any:
    """A trained faiss index over float32[N, E], one thread, so that the same vectors give the same index.

    Many lists are trained on fewer vectors each than faiss takes (256): as good, and minutes sooner with millions.
    """
    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(vectors.shape[1], recipe.factory, faiss.METRIC_INNER_PRODUCT)
    vectors = np.ascontiguousarray(vectors, np.float32)
    if isinstance(index, faiss.IndexIVF):
        index.cp.max_points_per_centroid = max(64, min(256, TRAINED_ON // index.nlist))
    if not index.is_trained:
        index.train(vectors)
    index.add(vectors)
    return index


def build_beside(index: Any, factory: str, vectors: Scores) -> Any:
    """An inverted file of another encoding (`IVF256,SQ8`) over the lists that a trained one of as many has."""
    other = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    other.quantizer.add(index.quantizer.reconstruct_n(0, index.nlist))  # which spares its training
    other.train(np.ascontiguousarray(vectors[:: max(1, len(vectors) // BESIDE)], np.float32))
    other.add(np.ascontiguousarray(vectors, np.float32))
    return other


def index_bytes(index: CpuIndex | ScannedIndex) -> int:
    """What a search needs in memory beside the embeddings."""
    if isinstance(index, ScannedIndex):
        return sum(getattr(index.file.lists, name).nbytes for name in PARTS)
    return len(faiss.serialize_index(index.index))


def write_index(index: Any, path: Path) -> None:
    """Raises OSError when the disk refuses."""
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:  # faiss knows no other
        raise OSError(f"{path.name}: {' '.join(str(error).split())}") from error


def write_lists(index: Any, vectors: Scores, directory: Path) -> None:
    """What our own scan needs for this faiss index over vectors f32[N, E], as files that a bundle maps; nothing where
    it does not search such an index. Raises OSError when the disk refuses."""
    found = scanned(CpuIndex(index, vectors, 1))
    if found is not None:
        found.file.lists.save(directory)


def read_index(path: Path) -> Any:
    """Reads an index whose hash the caller has already checked: a faiss file is code's input, not mere data."""
    return faiss.read_index(str(path))


class CpuIndex:
    """A faiss index in memory. Not for concurrent callers: faiss keeps an OpenMP pool for each calling thread."""

    def __init__(self, index: Any, vectors: Scores, nprobe: int) -> None:
        self.index, self.vectors = index, vectors
        self.nprobe = nprobe if isinstance(index, faiss.IndexIVF) else 1
        if isinstance(index, faiss.IndexIVF):
            index.nprobe = nprobe

    @property
    def shape(self) -> tuple[int, int]:
        return self.index.ntotal, self.index.d

    def search(self, queries: Scores, k: int, allowed: Mask | None = None, probe: float = 1.0) -> tuple[Scores, Rows]:
        k = min(k, self.index.ntotal)
        if allowed is None:
            fewer = None if probe == 1.0 else self._parameters(probe)
            scores, rows = self.index.search(queries, k, params=fewer)
            return scores, rows
        passing = np.flatnonzero(allowed)
        # Few rows pass, or few of a probed list would: scanning the passing rows is exact, fills k, and costs less
        # than probing every list for them.
        if len(passing) <= max(4 * k, self.index.ntotal // 8):
            return exact_search(self.vectors, passing, queries, k)
        scores, rows = self.index.search(queries, k, params=self._parameters(probe, allowed))
        if (rows[:, -1] < 0).any():
            return exact_search(self.vectors, passing, queries, k)
        return scores, rows

    def add(self, vectors: Scores, count: int) -> None:
        self.index.add(vectors[-count:])
        self.vectors = vectors

    def _parameters(self, probe: float, allowed: Mask | None = None) -> Any:
        selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if isinstance(self.index, faiss.IndexIVF):
            return faiss.SearchParametersIVF(sel=selector, nprobe=share_of(self.nprobe, probe))
        return faiss.SearchParameters(sel=selector)


def scanned(index: CpuIndex) -> ScannedIndex | None:
    """The same index by our own scan; None where it is of another kind, or does not hold the vectors as they are."""
    faiss_index, vectors = index.index, np.ascontiguousarray(index.vectors, np.float32)
    if faiss_index.metric_type != faiss.METRIC_INNER_PRODUCT or index.shape != vectors.shape:
        return None
    if isinstance(faiss_index, faiss.IndexFlat):
        offsets, rows = np.array([0, len(vectors)]), np.arange(len(vectors), dtype=np.int32)
        flat = Lists.of(np.zeros((1, vectors.shape[1]), np.float32), offsets, rows, vectors)
        return ScannedIndex(InvertedFile(flat, vectors, 1), vectors)
    if not isinstance(faiss_index, faiss.IndexIVFFlat) or not isinstance(
        faiss.downcast_index(faiss_index.quantizer), faiss.IndexFlat
    ):
        return None
    lists, sizes, held = faiss_index.invlists, [], []
    for number in range(faiss_index.nlist):
        size = lists.list_size(number)
        sizes.append(size)
        held.append(faiss.rev_swig_ptr(lists.get_ids(number), size).copy() if size else np.zeros(0, np.int64))
    rows = np.concatenate(held)
    if (np.sort(rows) != np.arange(len(vectors))).any():
        return None
    centres = faiss_index.quantizer.reconstruct_n(0, faiss_index.nlist)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    found = Lists.of(centres, offsets, rows.astype(np.int32), vectors)
    return ScannedIndex(InvertedFile(found, vectors, index.nprobe), vectors)


class ExactIndex:
    """Every vector compared on the CPU: for a bundle where faiss is not installed."""

    def __init__(self, vectors: Scores) -> None:
        self.vectors, self.nprobe = vectors, 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.vectors.shape[0], self.vectors.shape[1]

    def search(self, queries: Scores, k: int, allowed: Mask | None = None, probe: float = 1.0) -> tuple[Scores, Rows]:
        """`probe` is of no account: all is searched."""
        passing = np.arange(len(self.vectors)) if allowed is None else np.flatnonzero(allowed)
        return exact_search(self.vectors, passing, queries, min(k, len(self.vectors)))

    def add(self, vectors: Scores, count: int) -> None:
        self.vectors = vectors


def open_index(path: Path, vectors: Scores, nprobe: int) -> CpuIndex | ExactIndex:
    """The index of a bundle whose hash the caller has already checked. Raises ValueError, and RuntimeError as faiss."""
    if isinstance(faiss, NoFaiss):
        return ExactIndex(vectors)
    index = read_index(path)
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError("it searches by distance, not by inner product")
    return CpuIndex(index, vectors, nprobe)


class GpuIndex:
    """The same index on a GPU, for one caller only: faiss GPU indexes are not safe for concurrent readers.

    What faiss refuses there, a mask or more than 2,048 results, the exact search on the same GPU answers.
    """

    def __init__(self, host: CpuIndex, device: int = 0) -> None:
        self.nprobe = 1
        self.exact = TorchIndex(host.vectors, torch.device("cuda", device))
        self.resources = faiss.StandardGpuResources()
        self.index = faiss.index_cpu_to_gpu(self.resources, device, host.index)

    def search(self, queries: Scores, k: int, allowed: Mask | None = None, probe: float = 1.0) -> tuple[Scores, Rows]:
        """`probe` is of no account: faiss' GPU indexes take their number of lists from the recipe."""
        if allowed is not None or k > 2048:
            return self.exact.search(queries, k, allowed)
        scores, rows = self.index.search(queries, min(k, self.index.ntotal))
        return scores, rows

    def add(self, vectors: Scores, count: int) -> None:
        self.exact.add(vectors, count)
        self.index.add(vectors[-count:])


def gpu_available() -> bool:
    """Whether this build of faiss can reach a GPU."""
    return not isinstance(faiss, NoFaiss) and hasattr(faiss, "StandardGpuResources") and bool(faiss.get_num_gpus() > 0)


def one_thread() -> None:
    """Keeps faiss, called from this thread, on one core: its OpenMP pool belongs to the calling thread."""
    if not isinstance(faiss, NoFaiss):
        faiss.omp_set_num_threads(1)
