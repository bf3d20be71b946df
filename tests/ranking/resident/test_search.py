"""Exact search in half precision: what its bound promises, and what becomes of queries that it cannot decide."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ranking.resident.search import Nearest, Precision, TorchIndex

CPU = torch.device("cpu")
HALF: list[Precision] = ["float16", "bfloat16"]


def vectors(size: int, width: int, spread: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = rng.standard_normal((size, width)) * rng.lognormal(0, spread, (size, 1))
    return out.astype(np.float32)


def brute(queries: np.ndarray, table: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries @ table.T), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize(("width", "spread", "size"), [(4, 0.0, 1.0), (64, 0.0, 1e-6), (64, 1.5, 1e5), (300, 0.5, 1.0)])
def test_no_rounded_product_is_farther_from_the_true_one_than_the_bound_says(
    precision: Precision, width: int, spread: float, size: float
) -> None:
    """Also of vectors that are far too large or too small for the type, and of very uneven ones."""
    nearest = Nearest(vectors(3000, width, spread) * np.float32(size), CPU, precision)
    queries = torch.from_numpy(vectors(20, width, 2.0, seed=1))
    units = queries / queries.abs().amax(1, keepdim=True)
    rounded = torch.nn.functional.linear(units.to(nearest.dtype), nearest.coarse).double()
    true = units.double() @ (nearest.vectors.double() * float(nearest.unit)).T
    wrong = (rounded - true).abs().amax(1)
    assert (wrong <= nearest.slack(units)).all() and (wrong > 0).any()


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 100, 1000])
def test_the_answer_is_float32_s_whatever_the_vectors(precision: Precision, spread: float, k: int) -> None:
    table, queries = vectors(4000, 32, spread), vectors(8, 32, seed=1)
    _, rows = TorchIndex(table, CPU, precision).search(queries, k)
    np.testing.assert_array_equal(rows, brute(queries, table, k))


def test_queries_for_which_the_bound_does_not_suffice_are_searched_again_in_float32() -> None:
    """A thousand vectors that differ by less than float16 can tell: only float32 has them in order."""
    table = np.repeat(vectors(1, 32), 3000, 0)
    table[:, 0] += np.random.default_rng(2).permutation(3000).astype(np.float32) * 1e-6
    queries = np.concatenate([np.eye(1, 32), np.abs(vectors(2, 32, seed=3))]).astype(np.float32)
    index = TorchIndex(table, CPU)
    _, rows = index.search(queries, 5)
    assert index.again == 3
    np.testing.assert_array_equal(rows[0], np.argsort(-table[:, 0])[:5])
    everything = TorchIndex(table, CPU)
    everything.search(queries, 3000)  # all are looked at in float32: nothing is in doubt
    assert everything.again == 0


def test_unit_vectors_are_hardly_ever_searched_twice() -> None:
    table = vectors(20_000, 64)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    index = TorchIndex(table, CPU)
    index.search(table[:100] + table[100:200], 200)
    assert index.again <= 2


@pytest.mark.parametrize("precision", ["float32", *HALF])
def test_each_query_may_have_a_mask_of_its_own(precision: Precision) -> None:
    """In one search, also where some of the queries are searched again."""
    table, queries = vectors(2000, 8, 2.0), vectors(6, 8, seed=1)
    masks = np.random.default_rng(4).random((6, 2000)) < np.array([1, 0.5, 0.3, 0.01, 0.001, 0])[:, None]
    index = TorchIndex(table, CPU, precision)
    scores, rows = index.search(queries, 30, masks)
    for i in range(6):
        passing = np.flatnonzero(masks[i])
        expected = passing[np.argsort(-(table[passing] @ queries[i]), kind="stable")][:30]
        assert rows[i, : len(expected)].tolist() == expected.tolist()
        assert (rows[i, len(expected) :] == -1).all() and np.isneginf(scores[i, len(expected) :]).all()


def test_a_share_of_lists_to_probe_changes_nothing() -> None:
    table, queries = vectors(500, 8), vectors(3, 8, seed=1)
    index = TorchIndex(table, CPU)
    np.testing.assert_array_equal(index.search(queries, 9)[1], index.search(queries, 9, probe=0.1)[1])


@pytest.mark.parametrize("products", [64, 1000, 1 << 20])
def test_memory_stays_bounded_and_the_answer_the_same(products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No product is larger than asked for, but for pieces of 64 rows, the smallest."""
    table, queries = vectors(1500, 8), vectors(3, 8, seed=1)
    sizes = []
    linear = torch.nn.functional.linear

    def watched(*given: torch.Tensor) -> torch.Tensor:
        out = linear(*given)
        sizes.append(out.numel())
        return out

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    _, rows = TorchIndex(table, CPU, products=products).search(queries, 400)
    np.testing.assert_array_equal(rows, brute(queries, table, 400))
    assert max(sizes) <= max(products, 3 * 64)


def test_an_index_of_nothing_finds_nothing() -> None:
    assert TorchIndex(np.zeros((0, 4), np.float32), CPU).search(vectors(2, 4), 5)[1].shape == (2, 0)
