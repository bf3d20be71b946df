"""Which index recipe is the cheapest that finds enough, measured on a catalogue's own vectors, queries and machine.

Every recipe is searched as the service would search it: `Flat` and `IVF…,Flat` by our own scan, others by faiss.
Recall is the share of the k best by exact search that a search finds. For lists it follows, for every number of probes
at once, from where the lists of the true best stand in each query's order of lists: so the number of probes that a
recall takes is computed and not searched for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ranking.index import CpuIndex, IndexRecipe, Rows, Scores, build_beside, build_index, index_bytes, scanned
from ranking.scanned import ScannedIndex

TIMED, BATCH = 200, 32
"""Searches that are timed, and how many are made in one go."""
ROUNDS = 3
LEVELS = (0.8, 0.9, 0.99)
"""Recalls that are shown beside the one that is asked for."""
LEAST_A_LIST = 39
"""faiss warns of lists that are trained on fewer."""
BLOCK = 65536
Said = Callable[[str], None]


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What one recipe gave: `recall` against exact search, `search_us` microseconds a search on one core (the best of
    three rounds), `bytes` in memory beside the embeddings, `build_s` seconds to train and fill it."""

    factory: str
    nprobe: int
    recall: float
    search_us: float
    bytes: int
    build_s: float
    by: str


@dataclass(frozen=True, slots=True)
class Tuned:
    """`tried`: every recipe, in the order of its trial. `best`: the cheapest of those that meet the recall. `index`:
    that one, as faiss has it, ready to be packed."""

    tried: list[Tried]
    best: Tried
    index: Any


def tune(
    vectors: Scores, queries: Scores, *, k: int = 500, recall: float = 0.95, lists: Sequence[int] = (),
    say: Said = lambda text: None,
) -> Tuned:  # fmt: skip
    """Tries recipes over vectors f32[N, E] with queries f32[Q, E]. `lists` are the numbers of lists to try; by default
    about one, two and four times the square root of N. `say` is told of each step."""
    k = min(k, len(vectors))
    say(f"exact search: {len(queries)} queries, {k} of {len(vectors):,} items")
    truth = exact(vectors, queries, k)
    began = time.perf_counter()
    flat = CpuIndex(build_index(vectors, IndexRecipe("Flat")), vectors, 1)
    found = tried("Flat", flat, truth, queries, k, time.perf_counter() - began)
    every, indexes = [found], {found.factory: flat.index}
    for number in lists or list_numbers(len(vectors)):
        say(f"IVF{number}: training and filling")
        began = time.perf_counter()
        index = build_index(vectors, IndexRecipe(f"IVF{number},Flat"))
        took = time.perf_counter() - began
        indexes[f"IVF{number},Flat"] = index
        every += with_lists(index, f"IVF{number},Flat", vectors, queries, truth, k, recall, took)
        best = cheapest(every, recall)
        for name in [name for name in indexes if name not in (best.factory, f"IVF{number},Flat")]:
            del indexes[name]  # one that is beaten is no longer needed, and large
    best = cheapest(every, recall)
    if best.factory != "Flat":
        for kind in smaller(*vectors.shape):
            say(f"{best.factory.partition(',')[0]},{kind}")
            one, index = coarser(indexes[best.factory], best, kind, vectors, queries, truth, k, recall)
            every.append(one)
            if cheapest(every, recall) is one:
                indexes[one.factory] = index
    best = cheapest(every, recall)
    return Tuned(every, best, indexes[best.factory])


def list_numbers(items: int) -> list[int]:
    """Powers of two near one, two and four times the square root, as far as there are items to train them."""
    near = [1 << round(float(np.log2(times * items**0.5))) for times in (1, 2, 4)]
    return [one for one in near if one * LEAST_A_LIST <= items and one > 1]


def smaller(items: int, dimension: int) -> Iterator[str]:
    """Encodings that take as much memory as our own codes, or a quarter of it."""
    yield "SQ8"
    if dimension % 2 == 0 and items >= LEAST_A_LIST * 16:  # the numbers that each of its four bits can be
        yield f"PQ{dimension // 2}x4fs"


def cheapest(every: Sequence[Tried], recall: float) -> Tried:
    """The fastest of those that find enough; Flat, which finds everything, is among them."""
    return min((one for one in every if one.recall >= recall), key=lambda one: one.search_us)


def exact(vectors: Scores, queries: Scores, k: int) -> Rows:
    """The k best rows of each query: int64[Q, k], in no order."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    for start in range(0, len(vectors), BLOCK):
        part = vectors[start : start + BLOCK]
        both = np.concatenate([scores, queries @ part.T], 1)
        at = np.broadcast_to(np.arange(start, start + len(part)), (len(queries), len(part)))
        named = np.concatenate([rows, at], 1)
        best = np.argpartition(-both, k - 1, 1)[:, :k]
        scores, rows = np.take_along_axis(both, best, 1), np.take_along_axis(named, best, 1)
    return rows


def with_lists(
    index: Any, factory: str, vectors: Scores, queries: Scores, truth: Rows, k: int, recall: float, took: float
) -> list[Tried]:
    """An inverted file with as many probes as each level of recall takes."""
    host = CpuIndex(index, vectors, 1)
    found = scanned(host)
    assert found is not None
    places = np.sort(list_places(found, queries, truth), axis=None)
    levels = sorted({*(one for one in LEVELS if one < recall), recall, *(one for one in LEVELS[-1:] if one > recall)})
    probes = [int(places[int(np.ceil(level * len(places))) - 1]) + 1 for level in levels]
    return [tried(factory, CpuIndex(index, vectors, one), truth, queries, k, took) for one in dict.fromkeys(probes)]


def list_places(found: ScannedIndex, queries: Scores, truth: Rows) -> npt.NDArray[np.int64]:
    """int64[Q, k]: where the list of each true row stands among all lists, nearest first."""
    lists = found.file.lists
    holds = np.empty(len(lists.rows), np.int64)
    holds[lists.rows] = np.repeat(np.arange(len(lists.centres)), np.diff(lists.offsets))
    place = np.empty((len(queries), len(lists.centres)), np.int64)
    np.put_along_axis(place, np.argsort(-(queries @ lists.centres.T), 1), np.arange(len(lists.centres))[None], 1)
    return np.take_along_axis(place, holds[truth], 1)


def coarser(
    index: Any, best: Tried, kind: str, vectors: Scores, queries: Scores, truth: Rows, k: int, recall: float
) -> tuple[Tried, Any]:
    """The same lists with vectors of another encoding, and as many probes more as make up for it, where any do."""
    factory = f"{best.factory.partition(',')[0]},{kind}"
    began = time.perf_counter()
    other = build_beside(index, factory, vectors)
    took = best.build_s + time.perf_counter() - began
    nprobe, most = best.nprobe, 2 * best.nprobe
    while True:
        one = tried(factory, CpuIndex(other, vectors, nprobe), truth, queries, k, took)
        if one.recall >= recall or nprobe >= most:
            return one, other
        nprobe = min(nprobe + max(nprobe // 6, 1), most)


def tried(factory: str, host: CpuIndex, truth: Rows, queries: Scores, k: int, took: float) -> Tried:
    """Searches as the service does, and times it."""
    index = scanned(host) or host
    rows = np.concatenate([index.search(queries[at : at + BATCH], k)[1] for at in range(0, len(queries), BATCH)])
    right = sum(len(np.intersect1d(one, other)) for one, other in zip(rows, truth, strict=True))
    timed = queries[:TIMED]
    best = np.inf
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for query in timed:
            index.search(query[None], k)
        best = min(best, time.perf_counter() - began)
    return Tried(
        factory=factory, nprobe=host.nprobe, recall=right / truth.size, search_us=best / len(timed) * 1e6,
        bytes=index_bytes(index), build_s=took, by="our scan" if isinstance(index, ScannedIndex) else "faiss",
    )  # fmt: skip


def made_up_queries(vectors: Scores, count: int, seed: int = 0) -> Scores:
    """Where no shopper is known: embeddings of random items, each as far from its item as items are from each other's
    nearest ones, of the item's own length. f32[count, E]"""
    rng = np.random.default_rng(seed)
    some = vectors[np.sort(rng.choice(len(vectors), min(count, len(vectors)), replace=False))]
    length = np.linalg.norm(some, axis=1, keepdims=True)
    noise = rng.standard_normal(some.shape).astype(np.float32)
    noise *= length / np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-12)
    mixed = some + noise
    found: Scores = mixed * (length / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12))
    return found.astype(np.float32)
