"""The cheapest recipe that finds enough: its recall is what a search has, and it is the fastest of those that do."""

from __future__ import annotations

import numpy as np
import pytest

from ranking import tune as tuning
from ranking.index import CpuIndex, IndexRecipe, build_index, scanned
from ranking.scanned import exact_search
from ranking.tune import Tried, cheapest, exact, list_numbers, made_up_queries, tune

N, E, K = 6000, 16, 40
RNG = np.random.default_rng(0)
VECTORS = (RNG.standard_normal((30, E))[RNG.integers(0, 30, N)] + 0.5 * RNG.standard_normal((N, E))).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
QUERIES = made_up_queries(VECTORS, 50)


def recall(rows: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / truth.shape[1] for a, b in zip(rows, truth, strict=True)]))


@pytest.fixture(scope="module")
def found() -> tuning.Tuned:
    return tune(VECTORS, QUERIES, k=K, recall=0.9)


def test_the_recipe_has_the_recall_that_is_said_of_it_and_one_probe_less_has_not_enough(found: tuning.Tuned) -> None:
    """By a search of the same recipe made anew, as packing makes it."""
    truth = exact_search(VECTORS, np.arange(N), QUERIES, K)[1]
    with_lists = [one for one in found.tried if one.factory.endswith(",Flat")]
    assert {one.factory for one in with_lists} == {f"IVF{n},Flat" for n in list_numbers(N)}
    for one in with_lists:
        index = build_index(VECTORS, IndexRecipe(one.factory, one.nprobe))
        searched = scanned(CpuIndex(index, VECTORS, one.nprobe))
        assert searched is not None
        assert recall(searched.search(QUERIES, K)[1], truth) == pytest.approx(one.recall, abs=1e-3)
        fewer = scanned(CpuIndex(index, VECTORS, max(one.nprobe - 1, 1)))
        assert fewer is not None
        if 0.9 <= one.recall < 0.99 and one.nprobe > 1:
            assert recall(fewer.search(QUERIES, K)[1], truth) < 0.9


def test_the_best_is_the_fastest_of_those_that_find_enough_and_its_index_is_handed_on(found: tuning.Tuned) -> None:
    enough = [one for one in found.tried if one.recall >= 0.9]
    assert found.best.search_us == min(one.search_us for one in enough) and len(enough) >= 2
    rows = CpuIndex(found.index, VECTORS, found.best.nprobe).search(QUERIES, K)[1]
    truth = exact_search(VECTORS, np.arange(N), QUERIES, K)[1]
    assert recall(rows, truth) == pytest.approx(found.best.recall, abs=0.005)


def test_every_recipe_is_said_with_who_searches_it_and_flat_finds_everything(found: tuning.Tuned) -> None:
    flat = found.tried[0]
    assert (flat.factory, flat.recall, flat.by) == ("Flat", 1.0, "our scan")
    assert all(one.by == ("faiss" if one.factory[-4:] != "Flat" else "our scan") for one in found.tried)
    assert all(one.bytes > 0 and one.build_s >= 0 and one.search_us > 0 for one in found.tried)


def test_where_no_list_pays_the_recipe_is_flat() -> None:
    """A recall of all there is, and so few items that no list can be trained."""
    tiny = tune(VECTORS[:60], QUERIES, k=500, recall=1.0)
    assert [one.factory for one in tiny.tried] == ["Flat"] and tiny.best.recall == 1.0


def test_what_finds_too_little_is_never_the_cheapest() -> None:
    def one(recall: float, us: float) -> Tried:
        return Tried(factory=str(us), nprobe=1, recall=recall, search_us=us, bytes=1, build_s=0, by="faiss")

    assert cheapest([one(1.0, 900), one(0.94, 10), one(0.96, 200), one(0.95, 300)], 0.95).search_us == 200


def test_exact_search_in_blocks_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "BLOCK", 700)
    expected = np.sort(np.argsort(-(QUERIES @ VECTORS.T), 1)[:, :K], 1)
    np.testing.assert_array_equal(np.sort(exact(VECTORS, QUERIES, K), 1), expected)


@pytest.mark.parametrize(("items", "numbers"), [(60, []), (10_000, [128, 256]), (1_000_000, [1024, 2048, 4096])])
def test_so_many_lists_are_tried_as_there_are_items_for(items: int, numbers: list[int]) -> None:
    assert list_numbers(items) == numbers


def test_made_up_queries_are_of_the_items_lengths_and_of_no_item() -> None:
    long = VECTORS * 3
    queries = made_up_queries(long, 30)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 3, rtol=1e-5)
    assert (queries @ long.T).max() < 8.9 and queries.dtype == np.float32
