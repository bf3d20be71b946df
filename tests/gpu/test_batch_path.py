"""The batch path on a GPU against the same one on the CPU. Skipped, with the reason, where there is no NVIDIA GPU."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from ranking.batch import Allowed, Query
from ranking.bundle import load_bundle
from ranking.device import choose
from ranking.engine import BatchPath
from ranking.errors import RankingError
from ranking.forward import FusedForward, TorchForward
from service.app import SOURCES
from tests.ranking.factory import make_bundle

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU; torch finds none here")

QUERIES = [
    Query(features={"user_recent:item_ids": ["i00003", "i00007"]}, sources={"personal": 100, "covisit": 50}, count=20),
    Query(features={}, sources={"personal": 100}, count=20, session=["i00001"]),
    Query(features={}, sources={"personal": 100}, count=10, session=["i00001"], allowed=Allowed(price_max=20.0)),
    Query(features={}, sources={"popular": 30}, count=20, ranked=False),
    Query(features={}, sources={"request": 3}, count=3, rank=["i00001", "i00002", "i00009"]),
]


@pytest.mark.gpu
@needs_gpu
def test_the_gpu_gives_the_cpu_s_answers(tmp_path: Path) -> None:
    """The same items in the same order, scores to float32's last bits; the tensors live on the device."""
    home = make_bundle(tmp_path, items=400)
    cpu = BatchPath(load_bundle(home), SOURCES, torch.device("cpu"))
    gpu = BatchPath(load_bundle(home), SOURCES, torch.device("cuda"))
    models = gpu.models
    assert isinstance(models, TorchForward) and isinstance(cpu.models, FusedForward)
    assert {one.device.type for one in models.tables} == {"cuda"}
    modules = (gpu.bundle.user_tower, gpu.bundle.ranker)
    assert all(one.device.type == "cuda" for module in modules for one in module.buffers())
    for one, other in zip(*(path.recommend(QUERIES, lambda stage: nullcontext()) for path in (cpu, gpu)), strict=True):
        assert set(one.rows.tolist()) == set(other.rows.tolist())
        np.testing.assert_allclose(np.sort(one.scores), np.sort(other.scores), rtol=1e-3, atol=1e-4)


def test_cuda_without_a_gpu_is_refused_and_auto_takes_the_cpu() -> None:
    if torch.cuda.is_available():
        assert choose("auto").type == "cuda"
        return
    assert choose("auto").type == "cpu"
    with pytest.raises(RankingError, match="torch finds no NVIDIA GPU"):
        choose("cuda")
