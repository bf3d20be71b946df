"""Centroids kept up to date: those of a mean over all vectors, whatever changed in whatever order."""

from __future__ import annotations

import numpy as np
import pytest

from ranking.centres import Centres


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e4])
def test_a_centroid_is_the_mean_of_its_vectors_of_length_one(scale: float) -> None:
    """Of a category that has none, that of all."""
    rng = np.random.default_rng(1)
    vectors = (scale * rng.standard_normal((3000, 8))).astype(np.float32)
    codes = rng.integers(0, 5, 3000).astype(np.int32)
    centres = Centres(vectors, codes, 7)
    for code in range(9):
        alike = vectors[codes == code] if code < 5 else vectors
        mean = alike.astype(np.float64).mean(0)
        np.testing.assert_allclose(centres.of(code), mean / np.linalg.norm(mean), atol=1e-6)


def test_after_moves_in_any_order_it_is_bit_for_bit_that_of_a_fresh_start() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((200, 4)).astype(np.float32)
    codes = rng.integers(0, 4, 200).astype(np.int32)
    moved = Centres(vectors, codes, 4)
    for _ in range(500):
        row, code = int(rng.integers(200)), int(rng.integers(0, 7))  # also to categories that are new
        moved.move(vectors[row], int(codes[row]), code)
        codes[row] = code
    fresh = Centres(vectors, codes, 7)
    assert np.array_equal(fresh.sums, moved.sums) and np.array_equal(fresh.counts, moved.counts)
    assert all(np.array_equal(fresh.of(code), moved.of(code)) for code in range(8))


def test_vectors_of_nothing_have_a_centroid_of_nothing() -> None:
    assert not Centres(np.zeros((3, 2), np.float32), np.zeros(3, np.int32), 1).of(0).any()
    assert not Centres(np.zeros((0, 2), np.float32), np.zeros(0, np.int32), 1).of(0).any()
