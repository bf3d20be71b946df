"""One contract for every index: the same answers as brute force, on whatever device it lives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ranking.index import CpuIndex, ExactIndex, GpuIndex, Index, IndexRecipe, build_index, gpu_available, scanned
from ranking.native import VNNI
from ranking.resident.search import TorchIndex
from ranking.scan import in_bytes, score_by_bytes
from ranking.scanned import exact_search

CPU = torch.device("cpu")
N, E = 3000, 16
VECTORS = np.random.default_rng(0).standard_normal((N, E)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
QUERIES = np.random.default_rng(1).standard_normal((5, E)).astype(np.float32)


def cpu(factory: str, nprobe: int = 1) -> CpuIndex:
    return CpuIndex(build_index(VECTORS, IndexRecipe(factory, nprobe)), VECTORS, nprobe)


def gpu() -> Index:
    if not gpu_available():
        pytest.skip("needs an NVIDIA GPU and a faiss build that reaches it")
    return GpuIndex(cpu("Flat"))


def torch_gpu() -> Index:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    return TorchIndex(VECTORS, torch.device("cuda"))


def by_scan(factory: str, nprobe: int = 1) -> Index:
    found = scanned(cpu(factory, nprobe))
    assert found is not None
    return found


MAKERS: dict[str, Callable[[], Index]] = {
    "our scan, flat": lambda: by_scan("Flat"),
    "our scan, every list probed": lambda: by_scan("IVF16,Flat", 16),
    "flat": lambda: cpu("Flat"),
    "ivf, every list probed": lambda: cpu("IVF16,Flat", 16),
    "exact on the cpu": lambda: ExactIndex(VECTORS),
    "torch in float16": lambda: TorchIndex(VECTORS, CPU),
    "torch in float16, in pieces": lambda: TorchIndex(VECTORS, CPU, products=5 * 300),
    "torch in bfloat16": lambda: TorchIndex(VECTORS, CPU, "bfloat16"),
    "torch in float32": lambda: TorchIndex(VECTORS, CPU, "float32"),
    "torch in float32, in pieces": lambda: TorchIndex(VECTORS, CPU, "float32", products=5 * 64),
}
GPU_MAKERS: dict[str, Callable[[], Index]] = {"faiss on a gpu": gpu, "torch on a gpu": torch_gpu}
INDEXES = [pytest.param(make, id=name) for name, make in MAKERS.items()] + [
    pytest.param(make, id=name, marks=pytest.mark.gpu) for name, make in GPU_MAKERS.items()
]


def brute(k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    scores = QUERIES @ VECTORS.T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, 1), rows


@pytest.mark.parametrize("make", INDEXES)
@pytest.mark.parametrize("k", [1, 50])
def test_search_equals_brute_force(make: Callable[[], Index], k: int) -> None:
    scores, rows = make().search(QUERIES, k)
    expected_scores, expected_rows = brute(k)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-5)
    assert rows.dtype == np.int64


@pytest.mark.parametrize("make", INDEXES)
@pytest.mark.parametrize("share", [0.9, 0.3, 0.01])
def test_a_mask_restricts_the_search_and_still_fills_k(make: Callable[[], Index], share: float) -> None:
    allowed = np.random.default_rng(2).random(N) < share
    k = min(20, int(allowed.sum()))
    scores, rows = make().search(QUERIES, k, allowed)
    expected_scores, expected_rows = brute(k, allowed)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", INDEXES)
@pytest.mark.parametrize("passing", [0, 3])
def test_places_that_nothing_fills_are_minus_one_and_last(make: Callable[[], Index], passing: int) -> None:
    allowed = np.zeros(N, bool)
    allowed[:passing] = True
    _, rows = make().search(QUERIES, 10, allowed)
    assert ((rows >= 0).sum(1) == passing).all()
    assert (rows[:, passing:] == -1).all()


@pytest.mark.parametrize("make", INDEXES)
@pytest.mark.parametrize("several", [1, 700])
def test_items_that_come_later_are_found_as_those_before(make: Callable[[], Index], several: int) -> None:
    """Few, or more than there was room for; also one that is longer than all before."""
    index = make()
    new = np.random.default_rng(5).standard_normal((several, E)).astype(np.float32)
    longer = np.concatenate([VECTORS, new])
    index.add(longer, several)
    scores, rows = index.search(QUERIES, 30)
    expected = QUERIES @ longer.T
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=1, kind="stable")[:, :30])
    np.testing.assert_allclose(scores, np.take_along_axis(expected, rows, 1), rtol=1e-4, atol=1e-5)
    mask = np.ones(N + several, bool)
    mask[rows[0, :3]] = False
    assert not np.isin(rows[0, :3], index.search(QUERIES, 30, mask)[1]).any()


def test_an_ivf_search_that_misses_falls_back_on_the_exact_one() -> None:
    """One probed list of sixteen cannot hold 1,500 items; the masked search fills k all the same."""
    allowed = np.random.default_rng(3).random(N) < 0.7
    scores, rows = cpu("IVF16,Flat", 1).search(QUERIES, 1500, allowed)
    np.testing.assert_array_equal(rows, brute(1500, allowed)[1])
    assert np.isfinite(scores).all()


def test_asking_for_more_than_there_is_gives_all_of_it() -> None:
    assert cpu("Flat").search(QUERIES, N + 5)[1].shape == (5, N)


def test_exact_search_of_no_rows_is_empty() -> None:
    _, rows = exact_search(VECTORS, np.zeros(0, np.int64), QUERIES, 4)
    assert (rows == -1).all() and rows.shape == (5, 4)


@pytest.mark.parametrize("k", [1, 40, 700])
def test_our_scan_of_some_lists_finds_what_faiss_finds_in_them(k: int) -> None:
    """Also where the lists hold fewer than k, and for vectors of any length with zeros and ties among them."""
    rng = np.random.default_rng(4)
    vectors = (VECTORS * rng.lognormal(0, 1, (N, 1))).astype(np.float32)
    vectors[::50] = 0
    vectors[1::50] = vectors[2::50]
    theirs = CpuIndex(build_index(vectors, IndexRecipe("IVF32,Flat", 4)), vectors, 4)
    ours = scanned(theirs)
    assert ours is not None
    queries = np.concatenate([rng.standard_normal((40, E)), np.zeros((1, E))]).astype(np.float32)
    scores, rows = ours.search(queries, k)
    expected, expected_rows = theirs.search(queries, k)
    for one, other in zip(rows[:-1], expected_rows[:-1], strict=True):  # nothing is nearest to no direction
        assert (one >= 0).sum() == (other >= 0).sum()
    there = rows[:-1] >= 0
    np.testing.assert_allclose(scores[:-1][there], expected[:-1][there], rtol=1e-5, atol=1e-5)
    assert all(len(set(one[one >= 0])) == (one >= 0).sum() for one in rows)


@pytest.mark.parametrize("width", [64, 100, 128])
@pytest.mark.parametrize("k", [1, 300, 2500])
def test_our_scan_finds_the_same_rows_as_faiss_whatever_the_width(width: int, k: int) -> None:
    """Also by the instructions for multiples of 64 where this CPU has them, and of more rows than come together at
    once; the same of those rows alone that a mask lets pass."""
    rng = np.random.default_rng(width)
    centres = rng.standard_normal((40, width))
    vectors = (centres[rng.integers(0, 40, 40_000)] + 0.6 * rng.standard_normal((40_000, width))).astype(np.float32)
    theirs = CpuIndex(build_index(vectors, IndexRecipe("IVF16,Flat", 9)), vectors, 9)
    ours = scanned(theirs)
    assert ours is not None
    queries = rng.standard_normal((8, width)).astype(np.float32)
    for allowed in (None, rng.random(40_000) < 0.6):
        scores, rows = ours.search(queries, k, allowed)
        expected, expected_rows = theirs.search(queries, k, allowed)
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)
        assert (np.sort(rows) == np.sort(expected_rows)).mean() > 0.999  # but for ties at the last place


@pytest.mark.skipif(not VNNI, reason="this CPU has no AVX512-VNNI")
@pytest.mark.parametrize("code", [-127, 127, None])
def test_products_by_bytes_are_those_of_integers(code: int | None) -> None:
    """The largest and the smallest that there are, and any."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (50, 64)).astype(np.int8) if code is None else np.full((50, 64), code, np.int8)
    query = rng.integers(-32767, 32768, 64).astype(np.float32)
    query[:8] = 32767, -32767, 0, 1, -1, 255, 256, -256
    coded, scores = np.empty(128, np.uint8), np.empty(50, np.float32)
    assert in_bytes(query, coded) == 1
    score_by_bytes(query, coded, np.float32(1), codes, np.ones(50, np.float32), 0, 50, scores, 0)
    np.testing.assert_array_equal(scores, (codes.astype(np.int64) @ query.astype(np.int64)).astype(np.float32))


def test_our_scan_finds_items_that_came_later() -> None:
    ours = by_scan("IVF16,Flat", 2)
    new = QUERIES[:2] / np.linalg.norm(QUERIES[:2], axis=1, keepdims=True)
    longer = np.concatenate([VECTORS, new])
    ours.add(longer, 2)
    _, rows = ours.search(QUERIES[:2], 5)
    assert rows[:, 0].tolist() == [N, N + 1]
    mask = np.ones(N + 2, bool)
    mask[N] = False
    assert N not in ours.search(QUERIES[:2], 5, mask)[1]


def test_an_index_of_another_kind_stays_with_faiss() -> None:
    assert scanned(cpu("HNSW16")) is None and scanned(cpu("IVF16,SQ8", 4)) is None


@pytest.mark.parametrize("masked", [False, True])
def test_a_share_of_the_lists_is_a_search_of_so_many_fewer(masked: bool) -> None:
    """Half of 8 lists is the search with 4, by faiss as by our own scan; no share is less than one list."""
    allowed = np.random.default_rng(5).random(N) < 0.9 if masked else None
    expected = cpu("IVF16,Flat", 4).search(QUERIES, 20, allowed)[1]
    for index in (cpu("IVF16,Flat", 8), by_scan("IVF16,Flat", 8)):
        np.testing.assert_array_equal(index.search(QUERIES, 20, allowed, 0.5)[1], expected)
    least = cpu("IVF16,Flat", 1).search(QUERIES, 20)[1]
    np.testing.assert_array_equal(by_scan("IVF16,Flat", 8).search(QUERIES, 20, None, 0.01)[1], least)
