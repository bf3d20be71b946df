"""What is said of items on a device is what is said of them on the host."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ranking.bundle import load_bundle
from ranking.covisit import Covisits
from ranking.resident.search import Nearest
from ranking.resident.staging import Block
from ranking.resident.tables import Tables
from tests.ranking.factory import make_bundle

CPU = torch.device("cpu")


@pytest.mark.parametrize("seed", range(4))
def test_covisitation_on_a_device_is_that_of_the_host(tmp_path: Path, seed: int) -> None:
    """Histories with gaps, repeats or nothing; candidates that nobody visited together, repeated and empty ones."""
    bundle = load_bundle(make_bundle(tmp_path, 60))
    tables = Tables(bundle, Nearest(bundle.items.embeddings, CPU, "float16"))
    rng = np.random.default_rng(seed)
    history, rows = rng.integers(-1, 60, (9, 20)), rng.integers(-1, 60, (9, 40))
    history[0], history[1, :19] = -1, -1
    found = tables.signals(torch.from_numpy(history), torch.from_numpy(rows))[:, :, 0].numpy()
    covisits = Covisits(bundle.neighbors, bundle.neighbor_scores)
    expected = [covisits.lookup(one, *covisits.accumulate(past)) for one, past in zip(rows, history, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)
    assert (found > 0).any() and (found[0] == 0).all()


def test_without_covisitation_every_signal_is_zero(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path, 60))
    bundle.neighbors, bundle.neighbor_scores = np.zeros((60, 0), np.int32), np.zeros((60, 0), np.float32)
    tables = Tables(bundle, Nearest(bundle.items.embeddings, CPU, "float16"))
    nothing = tables.signals(torch.zeros(2, 20, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.int64))
    assert nothing.shape == (2, 5, 1) and not nothing.any()


def test_a_block_goes_and_comes_as_one_and_only_when_told() -> None:
    """Every array in its own type and place, an empty one among them."""
    fields = {
        "flags": (torch.bool, (3,)), "numbers": (torch.float32, (2, 5)), "none": (torch.int64, (2, 0)),
        "rows": (torch.int64, (2, 2)),
    }  # fmt: skip
    block = Block(fields, CPU)
    block.arrays["flags"][:] = [True, False, True]
    block.arrays["numbers"][:] = np.arange(10).reshape(2, 5)
    block.arrays["rows"][:] = [[1, -1], [2**40, 3]]
    assert not block.tensors["rows"].any()
    block.send()
    for name, (kind, shape) in fields.items():
        assert block.tensors[name].dtype == kind and tuple(block.tensors[name].shape) == shape
        np.testing.assert_array_equal(block.tensors[name].numpy(), block.arrays[name])
    block.tensors["numbers"].neg_()
    assert block.arrays["numbers"].max() == 9
    block.fetch()
    assert block.arrays["numbers"].max() == 0 and block.arrays["rows"][1, 0] == 2**40
