"""The compiled models against the torch modules that they stand for."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ranking.batch import SIGNALS
from ranking.bundle import Bundle, load_bundle
from ranking.engine import BatchPath
from ranking.exported import callable_of, export, on_device
from ranking.forward import Forward, FusedForward, TorchForward, forward
from ranking.fused.ranker import TILE
from ranking.ranker import Ranker
from ranking.screened import ScreenedForward
from ranking.towers import UserTower
from ranking.users import Users
from service.app import SOURCES
from tests.ranking.factory import make_bundle

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("models"), items=400))


def fused(bundle: Bundle) -> FusedForward:
    found = forward(bundle, CPU)
    assert isinstance(found, FusedForward)
    return found


def shoppers(bundle: Bundle, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dense, categorical and history of made-up shoppers; the last has no history."""
    schema = bundle.schema
    history = rng.integers(-1, len(bundle.items), (size, schema.history.length))
    history[-1] = -1
    dense = rng.normal(scale=6.0, size=(size, len(schema.dense))).astype(np.float32)  # some beyond the limit of 10
    categorical = np.stack([rng.integers(0, len(one.vocabulary) + 1, size) for one in schema.categorical], 1)
    return dense, categorical, history


def asked(bundle: Bundle, users: Users, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """rows and signals: some of the history among the candidates, some places empty."""
    rows = rng.integers(0, len(bundle.items), (len(users.dense), width))
    touched = min(width // 2, users.history.shape[1])
    rows[:, :touched] = np.maximum(users.history[:, :touched], 0)
    rows[0, width - width // 5 :] = -1
    return rows, rng.normal(size=(*rows.shape, len(SIGNALS))).astype(np.float32)


@pytest.mark.parametrize("width", [0, 1, TILE - 1, TILE, TILE + 1, 250])
@pytest.mark.parametrize("size", [1, 4])
def test_the_compiled_models_say_what_torch_says(bundle: Bundle, size: int, width: int) -> None:
    rng = np.random.default_rng(size * 1000 + width)
    inputs = shoppers(bundle, size, rng)
    both: list[Forward] = [fused(bundle), TorchForward(bundle, CPU)]
    one, other = (models.users(*inputs) for models in both)
    np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-6)
    rows, signals = asked(bundle, one, width, rng)
    scores, expected = (
        both[0].scores(one, rows, signals, [width] * size),
        both[1].scores(other, rows, signals, [width] * size),
    )
    assert scores.shape == (size, width) and (np.isneginf(scores) == (rows < 0)).all()
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_a_compiled_score_is_the_same_to_the_bit_in_any_company(bundle: Bundle) -> None:
    rng = np.random.default_rng(1)
    models = fused(bundle)
    users = models.users(*shoppers(bundle, 3, rng))
    rows, signals = asked(bundle, users, 90, rng)
    together = models.scores(users, rows, signals, [rows.shape[1]] * len(rows))
    for i in range(3):
        alone = models.users(users.dense[i : i + 1], users.categorical[i : i + 1], users.history[i : i + 1])
        assert (alone.vectors[0] == users.vectors[i]).all()
        for width in (1, 7, 80):
            few = models.scores(alone, rows[i : i + 1, :width], signals[i : i + 1, :width], [width])
            assert (few[0] == together[i, :width]).all()


def test_a_user_tower_that_nothing_asks_for_rests(bundle: Bundle) -> None:
    inputs = shoppers(bundle, 2, np.random.default_rng(2))
    both: list[Forward] = [fused(bundle), TorchForward(bundle, CPU)]
    for models in both:
        assert not models.users(*inputs, needed=False).vectors.any()


def test_another_architecture_runs_in_torch(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path, items=50))

    class Other(Ranker):
        """Of the same shape; what it computes is its own affair."""

    bundle.ranker.__class__ = Other
    assert isinstance(forward(bundle, CPU), TorchForward)


def test_a_model_that_the_compiled_form_does_not_reproduce_runs_in_torch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed module with an unchanged compiled twin is noticed when it is loaded, and said."""
    bundle = load_bundle(make_bundle(tmp_path, items=50))
    true = UserTower.encode
    monkeypatch.setattr(UserTower, "encode", lambda self, *inputs: -true(self, *inputs))
    with caplog.at_level(logging.WARNING):
        assert isinstance(forward(bundle, CPU), TorchForward)
    assert "the compiled models differ from torch's by" in caplog.text


def test_three_hidden_layers_run_in_torch(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path, items=50))
    config = dict(bundle.manifest.ranker.config) | {"hidden": [16, 8, 4]}
    shared = torch.from_numpy(np.ascontiguousarray(bundle.items.embeddings))
    bundle.ranker = Ranker(**config, item_embeddings=shared).eval().requires_grad_(False)
    assert isinstance(forward(bundle, CPU), TorchForward)


def test_a_ranker_that_was_taken_apart_lays_out_the_rows_that_changed_and_no_other(tmp_path: Path) -> None:
    """What it then has is what laying everything out gives, also where the table has grown."""
    path = BatchPath(load_bundle(make_bundle(tmp_path, items=60)), SOURCES, CPU)
    layer = torch.nn.Linear(path.bundle.items.dense.shape[1] + 1, 8)
    asked: list[int] = []

    def item(rows: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        asked.append(rows.shape[1])
        hidden: torch.Tensor = layer(torch.cat([rows.float()[..., None], dense], -1))
        return hidden

    models = object.__new__(ScreenedForward)
    models.factored = SimpleNamespace(item=item, item_inputs=("rows", "item_dense"), width=8)  # type: ignore[assignment]
    models.lay_out(path.bundle.items)
    path.models = models
    path.change([("i00004", {"events_24h": 9, "stats_at": 1.0}), ("i00031", {"price": 2.0})])
    path.change([("new", {"title": "x", "category": "Toys"}), ("i00005", {"price": 3.0})])
    assert asked == [60, 2, 2]
    found = models.table.copy()
    models.lay_out(path.bundle.items)
    np.testing.assert_allclose(found, models.table, rtol=1e-5, atol=1e-4)


def test_an_exported_program_makes_its_own_tensors_on_the_device_that_it_runs_on() -> None:
    """What torch.export writes down is the device of the machine that exported; `meta` stands for a GPU here."""

    class Weighted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 4)

        def forward(self, dense: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.net(dense + torch.arange(4.0)) * torch.ones(4).to("cpu")
            return found

    program = export(Weighted(), ["dense"], {"dense": torch.ones(3, 4)}, "here")
    module = callable_of(program, "here")
    here = module(torch.ones(5, 4))
    there = on_device(module, torch.device("meta"))(torch.ones(5, 4, device="meta"))
    assert here.device.type == "cpu" and there.device.type == "meta" and there.shape == (5, 4)
