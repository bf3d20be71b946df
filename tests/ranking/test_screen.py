"""Screening in int8 never changes an answer: the best are those of float32, whatever the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ranking.bundle import load_bundle
from ranking.factor import Mlp
from ranking.forward import screened
from ranking.pack import pack, read_spec
from ranking.screen import Screen
from ranking.screened import ScreenedForward
from tests.ranking.test_pack import SPEC, TYPES, place  # noqa: F401 - a fixture

H, M, N = 48, 24, 3000


def mlp(seed: int, spread: float) -> Mlp:
    """Rows of very different size where `spread` is large."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp(spread * torch.randn(M, 1, generator=generator))
    return Mlp(
        torch.randn(M, H, generator=generator) * scale, torch.randn(M, generator=generator),
        torch.randn(M, generator=generator), torch.randn(1, generator=generator),
    )  # fmt: skip


def exact(weights: Mlp, hidden: np.ndarray) -> np.ndarray:
    first = torch.relu(torch.from_numpy(hidden))
    second = torch.relu(first @ weights.weight.T + weights.bias)
    return (second @ weights.last + weights.last_bias).numpy()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_the_screen_is_near(seed: int, spread: float) -> None:
    """Within 2 % of the scores' spread on the whole; a row of nothing but zeros and a single candidate included."""
    rng, weights = np.random.default_rng(seed), mlp(seed, spread)
    table = rng.standard_normal((N, H)).astype(np.float32)
    table[0] = -100.0  # after the activation nothing is left of it
    user, rows = rng.standard_normal(H).astype(np.float32), rng.integers(0, N, 700)
    rows[0] = 0
    expected = exact(weights, table[rows] + user)
    found = Screen(weights).scores(table, user, rows)
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.02 * expected.std()
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(Screen(weights).scores(table, user, rows[:1]), found[:1], rtol=1e-6)


@pytest.fixture
def forward(place: Path) -> ScreenedForward:  # noqa: F811
    path = place / "pack.toml"
    path.write_text(SPEC)
    bundle = load_bundle(pack(path, read_spec(path), TYPES, {"profile": None, "recent": None}, place / "models"))
    found = screened(bundle)
    assert found is not None and found.factored.mlp is not None
    found.screen = found.screen or Screen(found.factored.mlp)  # whether or not it is faster here
    return found


@pytest.mark.parametrize("keep", [1, 20, 100, 290])
def test_the_best_are_those_of_float32(forward: ScreenedForward, keep: int) -> None:
    rng = np.random.default_rng(keep)
    for _ in range(20):
        first = rng.standard_normal(forward.factored.width).astype(np.float32)
        rows = rng.choice(600, 300, replace=False)
        expected, found = forward.exact(first, rows), forward.one(first, rows, keep)
        best = np.argsort(-expected, kind="stable")[:keep]
        assert np.argsort(-found, kind="stable")[:keep].tolist() == best.tolist()
        np.testing.assert_allclose(found[best], expected[best], rtol=1e-6)


def test_where_the_screen_is_far_off_everything_is_scored_exactly(forward: ScreenedForward) -> None:
    """A screen that says nothing but noise must not cost a single place."""
    rng = np.random.default_rng(0)

    class Noise:
        def scores(self, table: np.ndarray, user: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return rng.standard_normal(len(rows)).astype(np.float32)

    forward.screen = Noise()  # type: ignore[assignment]
    first, rows = rng.standard_normal(forward.factored.width).astype(np.float32), np.arange(400)
    np.testing.assert_array_equal(forward.one(first, rows, 20), forward.exact(first, rows))
