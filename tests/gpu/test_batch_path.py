"""The batch path on a GPU against the same one on the CPU. Skipped, with the reason, where there is no NVIDIA GPU.

Imports nothing but the ranking room, torch and pytest: `make gpu-check` runs it where little else is installed.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from ranking.batch import Allowed, Query, Ranked
from ranking.device import choose
from ranking.engine import BatchPath
from ranking.errors import RankingError
from ranking.forward import TorchForward
from ranking.resident.path import ResidentPath
from ranking.resident.search import Precision
from ranking.sources.covisit import Covisit
from ranking.sources.new import New
from ranking.sources.personal import Personal
from ranking.sources.popular import Popular
from ranking.sources.similar import Similar
from tests.gpu import in_memory

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU; torch finds none here")
SOURCES = [Personal(), Personal("session"), Covisit(), Similar(), Popular(), New()]
ITEMS = 3000

QUERIES = [
    Query(features={"user_recent:item_ids": ["i00003", "i00007"]}, sources={"personal": 100, "covisit": 50}, count=20),
    Query(features={"user_recent:item_ids": ["i00003", "i00007"]}, sources={"personal": 100}, count=20),
    Query(features={}, sources={"session": 100}, count=20, session=["i00001"]),
    Query(features={}, sources={"personal": 100}, count=10, session=["i00001"], allowed=Allowed(price_max=20.0)),
    Query(features={}, sources={"personal": 50}, count=10, allowed=Allowed(frozenset(["Toys"])), exclude=["i00010"]),
    Query(features={}, sources={"popular": 30}, count=20, ranked=False),
    Query(features={}, sources={"similar": 30}, count=20, item_id="i00005"),
    Query(features={}, sources={"request": 3}, count=3, rank=["i00001", "i00002", "i00009"]),
]


def paths(precision: Precision = "float16") -> tuple[ResidentPath, ResidentPath]:
    here, there = (
        ResidentPath(in_memory.bundle(ITEMS), SOURCES, torch.device(one), precision) for one in ("cpu", "cuda")
    )
    return here, there


def ask(path: BatchPath, queries: list[Query]) -> list[Ranked]:
    return path.recommend(queries, lambda stage: nullcontext())


def compare(here: list[Ranked], there: list[Ranked]) -> None:
    """The same items with the same scores; two that differ in their last bits may change places."""
    for one, other in zip(here, there, strict=True):
        assert len(np.setxor1d(one.rows, other.rows)) <= 2  # a tie at the end
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_the_gpu_gives_the_cpu_s_answers(precision: Precision) -> None:
    """One by one and in batches of every bucket; the tensors live on the device."""
    here, there = paths(precision)
    assert isinstance(there.models, TorchForward)
    assert {one.device.type for one in there.on_device.tables} == {"cuda"}
    modules = (there.bundle.user_tower, there.bundle.ranker)
    assert all(one.device.type == "cuda" for module in modules for one in module.buffers())
    for query in QUERIES:
        compare(ask(here, [query]), ask(there, [query]))
    for size in (2, 8, 40, 200):
        asked = [QUERIES[n % len(QUERIES)] for n in range(size)]
        compare(ask(here, asked), ask(there, asked))


@pytest.mark.gpu
@needs_gpu
def test_graphs_are_captured_and_a_replay_gives_what_a_first_run_gave() -> None:
    _, there = paths()
    first = ask(there, QUERIES[1:4])
    assert there.graphs.capture is not None, "the capture failed; the log says why"
    for _ in range(3):
        compare(first, ask(there, QUERIES[1:4]))
    compare(ask(there, QUERIES[2:3]), ask(there, QUERIES[2:4])[:1])


@pytest.mark.gpu
@needs_gpu
def test_item_changes_reach_the_gpu_and_graphs_that_were_captured_before() -> None:
    here, there = paths()
    ask(there, QUERIES)
    best = there.bundle.items.ids[ask(there, QUERIES[1:2])[0].rows[0]]
    for change in (
        (best, {"in_stock": False}), (best, {"in_stock": True}), (best, {"removed": True}), ("i00009", {"price": 1.0}),
    ):  # fmt: skip
        for path in (here, there):
            path.change([change])
        compare(ask(here, QUERIES), ask(there, QUERIES))
    many = [(f"new{n}", {"title": "x", "category": "Toys"}) for n in range(there.nearest.room - ITEMS + 1)]
    there.change(many)
    found = ask(there, QUERIES[1:5])
    assert all(np.isfinite(one.scores).all() for one in found) and there.graphs.capture is not None


@pytest.mark.gpu
@needs_gpu
def test_another_thread_captures_its_own_graphs() -> None:
    _, there = paths()
    before, after = ask(there, QUERIES), list[Ranked]()
    thread = threading.Thread(target=lambda: after.extend(ask(there, QUERIES)))
    thread.start()
    thread.join()
    compare(before, after)


def test_cuda_without_a_gpu_is_refused_and_auto_takes_the_cpu() -> None:
    if torch.cuda.is_available():
        assert choose("auto").type == "cuda"
        return
    assert choose("auto").type == "cpu"
    with pytest.raises(RankingError, match="torch finds no NVIDIA GPU"):
        choose("cuda")
