"""A ranker's layers in one pass: float32 to the last digits, int8 near, and nobody's score depends on the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ranking.factor import Mlp
from ranking.layers import Fused, fits

SHAPES = [(64, 16), (128, 256), (24, 48), (65, 32), (1, 16)]
"""Outputs and inputs of the layer: whole blocks, and such as need filling up."""


def mlp(outputs: int, inputs: int, seed: int = 0) -> Mlp:
    generator = torch.Generator().manual_seed(seed)
    return Mlp(
        torch.randn(outputs, inputs, generator=generator) / inputs**0.5, torch.randn(outputs, generator=generator),
        torch.randn(outputs, generator=generator), torch.randn(1, generator=generator),
    )  # fmt: skip


def true(weights: Mlp, hidden: np.ndarray) -> np.ndarray:
    """In float64."""
    first = np.maximum(hidden.astype(np.float64), 0)
    second = np.maximum(first @ weights.weight.numpy().T.astype(np.float64) + weights.bias.numpy(), 0)
    return second @ weights.last.numpy() + weights.last_bias.item()


@pytest.fixture(params=[True, False], ids=["float32", "int8"])
def exact(request: pytest.FixtureRequest) -> Iterator[bool]:
    if not fits(mlp(64, 16), exact=request.param):
        pytest.skip("this CPU has no AVX-512" + ("" if request.param else " with VNNI"))
    yield request.param


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 100])
def test_scores_are_those_of_the_layers(exact: bool, outputs: int, inputs: int, count: int) -> None:
    rng, weights = np.random.default_rng(count), mlp(outputs, inputs)
    table = rng.standard_normal((500, inputs)).astype(np.float32)
    table[0] = -100.0  # nothing of it passes
    user, rows = rng.standard_normal(inputs).astype(np.float32), rng.integers(0, 500, count)
    rows[:1] = 0
    expected = true(weights, table[rows] + user)
    found = Fused(weights, exact=exact).scores(table, user, rows)
    spread = true(weights, table + user).std() + 1e-9
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=(1e-5 if exact else 0.1) * spread + 1e-6)


def test_nobodys_score_depends_on_who_else_is_scored(exact: bool) -> None:
    rng, weights = np.random.default_rng(0), mlp(128, 64)
    table = rng.standard_normal((500, 64)).astype(np.float32)
    user, rows = rng.standard_normal(64).astype(np.float32), rng.permutation(500)[:50]
    layers = Fused(weights, exact=exact)
    together = layers.scores(table, user, rows)
    for start, count in ((0, 1), (3, 8), (44, 6), (10, 40)):
        np.testing.assert_array_equal(layers.scores(table, user, rows[start : start + count]), together[start:][:count])


def test_a_width_that_is_no_multiple_of_a_vector_is_left_to_others() -> None:
    assert not fits(mlp(64, 20), exact=True) and not fits(mlp(64, 20), exact=False)
