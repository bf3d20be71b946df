"""A GPU's batch path, on torch's CPU: the answers of the CPU's, whatever is asked and whatever has changed."""

from __future__ import annotations

import logging
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ranking.batch import Allowed, Query, Ranked
from ranking.bundle import Bundle, load_bundle
from ranking.engine import BatchPath
from ranking.forward import TorchForward
from ranking.resident import path as resident_path
from ranking.resident.graphs import Graphs, Run
from ranking.resident.path import ResidentPath
from ranking.resident.search import Nearest
from service.app import SOURCES
from tests.ranking.factory import CATEGORIES, make_bundle

CPU = torch.device("cpu")
ITEMS = 600


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("models"), ITEMS)


def both(home: Path, **options: Any) -> tuple[BatchPath, ResidentPath]:
    bundle = load_bundle(home)
    return BatchPath(bundle, SOURCES, CPU, TorchForward(bundle, CPU)), ResidentPath(
        load_bundle(home), SOURCES, CPU, **options
    )


def ask(path: BatchPath, queries: list[Query]) -> list[Ranked]:
    return path.recommend(queries, lambda stage: nullcontext())


def queries(size: int, seed: int = 0) -> list[Query]:
    """What one source answers: with and without histories, filters, exclusions, an item in view, and more kept."""
    rng = np.random.default_rng(seed)

    def ids(most: int) -> list[str]:
        return [f"i{row:05d}" for row in rng.integers(0, ITEMS, rng.integers(0, most + 1))]

    filters = [
        Allowed(), Allowed(), Allowed(frozenset(CATEGORIES[:2])), Allowed(price_max=20.0), Allowed(price_min=30.0),
        Allowed(frozenset([CATEGORIES[3], "no such"]), 5.0, 40.0), Allowed(frozenset(["no such"])),
    ]  # fmt: skip
    return [
        Query(
            features={"user_recent:item_ids": ids(25), "user_profile:country": "France", "user_profile:orders": 3},
            sources={("personal", "session")[int(rng.integers(2))]: int(rng.choice([3, 50, 200]))},
            count=int(rng.choice([1, 20])), keep=int(rng.choice([0, 60])), session=ids(2), exclude=ids(30),
            item_id="i00005" if rng.random() < 0.3 else None, allowed=filters[int(rng.integers(len(filters)))],
        )
        for _ in range(size)
    ]  # fmt: skip


def compare(expected: list[Ranked], found: list[Ranked]) -> None:
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.retrieval, other.retrieval, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(one.source, other.source)


def exactly(path: BatchPath, monkeypatch: pytest.MonkeyPatch) -> BatchPath:
    """The same path with stock as part of every search, so that it, too, always finds as many as were asked for."""
    monkeypatch.setattr(path.eligible, "mask", path.eligible.exact_mask)
    return path


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_the_answers_are_those_of_the_cpu_s_path(home: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = both(home, precision=precision)
    exactly(one, monkeypatch)
    for size in (1, 2, 7, 40):
        asked = queries(size, seed=size)
        assert all(other.is_resident(query) for query in asked)
        compare(ask(one, asked), ask(other, asked))


def test_it_answers_with_no_less_than_the_cpu_s_path_as_it_is(home: Path) -> None:
    one, other = both(home)
    asked = [replace(query, keep=200) for query in queries(40)]
    for mine, theirs in zip(ask(other, asked), ask(one, asked), strict=True):
        missing = ~np.isin(theirs.rows, mine.rows)
        assert (theirs.retrieval[missing] <= mine.retrieval.min(initial=np.inf) + 1e-6).all()  # but for a tie
        assert len(theirs.rows) <= len(mine.rows)


def test_a_query_gets_the_same_answer_alone_and_in_a_batch_of_any_kind(home: Path) -> None:
    """Padding, other quotas, filters and exclusions beside it, and queries that go the host's way."""
    _, path = both(home)
    asked = queries(12, seed=3)
    hosts = Query(features={}, sources={"popular": 30}, count=5)
    mixed = ask(path, [hosts, *asked[:5], hosts, *asked[5:], hosts])
    compare([ask(path, [query])[0] for query in asked], [*mixed[1:6], *mixed[7:-1]])
    compare([mixed[0]] * 2, [mixed[6], mixed[-1]])


def test_a_larger_batch_than_a_program_holds_is_answered_in_parts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident_path, "MOST_BATCH", 4)
    one, other = both(home)
    exactly(one, monkeypatch)
    compare(ask(one, queries(11)), ask(other, queries(11)))
    assert max(shape.batch for shape in other.programs) == 4


@pytest.mark.parametrize(
    ("changed", "resident"),
    [
        ({}, True),
        ({"new": 3}, True),
        ({"sources": {"personal": 50, "covisit": 20}}, False),
        ({"sources": {"popular": 50}}, False),
        ({"sources": {"similar": 50}}, False),
        ({"rank": ["i00001"]}, False),
        ({"ranked": False}, False),
        ({"sources": {"personal": 5000}}, False),
        ({"exclude": [f"i{row:05d}" for row in range(150)]}, False),
    ],
)
def test_which_queries_the_device_answers_alone_and_that_the_others_are_answered_too(
    home: Path, changed: dict[str, Any], resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = both(home)
    query = replace(Query(features={}, sources={"personal": 50}, count=10, session=["i00003"]), **changed)
    assert other.is_resident(query) == resident
    compare(ask(exactly(one, monkeypatch) if resident else one, [query]), ask(other, [query]))
    assert bool(other.programs) == resident


def test_a_new_item_makes_queries_that_ask_for_new_ones_the_host_s(home: Path) -> None:
    _, path = both(home)
    query = Query(features={}, sources={"personal": 50}, count=10, new=2)
    path.change([("new", {"title": "x", "category": CATEGORIES[0]})])
    assert not path.is_resident(query) and path.is_resident(replace(query, new=0))


def test_every_change_of_items_is_in_the_next_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sold out, removed (and priced meanwhile), back, a new price, a new category, counted, and new ones."""
    one, other = both(home)
    asked = queries(20, seed=5)
    best = [other.bundle.items.ids[row] for row in ask(other, asked[:1])[0].rows]
    changes: list[list[tuple[str, dict[str, Any]]]] = [
        [(best[0], {"in_stock": False})],
        [(best[1], {"removed": True})],
        [(best[1], {"price": 2.0})],
        [(best[0], {"in_stock": True}), (best[1], {"removed": False})],
        [("i00011", {"price": 12.0}), ("i00012", {"price": None}), ("i00013", {"category": "Sundials"})],
        [("i00014", {"events_30d": 400, "stats_at": 1.0})],
        [(f"new{n}", {"title": "x", "category": CATEGORIES[n % 5], "price": 10.0 + n}) for n in range(20)],
        [("new3", {"price": 1.0}), ("new4", {"removed": True})],
    ]
    sundials = [replace(asked[0], allowed=Allowed(frozenset(["Sundials"])))]
    for some in changes:
        for path in (one, other):
            path.change(some)
        exactly(one, monkeypatch)
        compare(ask(one, asked + sundials), ask(other, asked + sundials))


def test_more_new_items_than_there_was_room_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = both(home)
    ask(other, queries(3))
    room, shapes = other.nearest.room, set(other.programs)
    programs = [program for program, _ in other.programs.values()]
    some = [(f"new{n}", {"title": "x", "category": CATEGORIES[n % 5]}) for n in range(room - ITEMS + 1)]
    for path in (one, other):
        path.change(some)
    assert other.nearest.room > room and set(other.programs) == shapes
    assert not any(program in programs for program, _ in other.programs.values())
    exactly(one, monkeypatch)
    for mine, theirs in zip(ask(other, queries(20)), ask(one, queries(20)), strict=True):
        # Hundreds stand at one place, and which of them comes first nobody says.
        np.testing.assert_allclose(mine.scores, theirs.scores, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(np.sort(mine.retrieval), np.sort(theirs.retrieval), rtol=1e-4, atol=1e-5)
    assert max(mine.rows.max(initial=0) for mine in ask(other, queries(20))) >= ITEMS


def test_what_half_precision_cannot_tell_is_searched_in_float32(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = both(home)
    exactly(one, monkeypatch)
    asked, top = queries(10, seed=7), Nearest.top

    def doubtful(self: Nearest, *given: Any, **named: Any) -> tuple[torch.Tensor, ...]:
        scores, rows, sure = top(self, *given, **named)
        return scores * 0, rows * 0, sure & False

    monkeypatch.setattr(Nearest, "top", doubtful)
    exactly(other, monkeypatch)
    compare(ask(one, asked), ask(other, asked))
    assert other.index.again >= len(asked)  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", ["user tower", "ranker"])
def test_a_model_that_says_no_number_is_an_error(home: Path, module: str) -> None:
    _, path = both(home)
    bundle: Bundle = path.bundle
    broken = bundle.user_tower if module == "user tower" else bundle.ranker
    with torch.no_grad():
        next(iter(broken.parameters())).fill_(torch.nan)
    with pytest.raises(ValueError, match=f"the {module} answered with NaN or infinity"):
        ask(path, queries(3))


class Recorded:
    """Stands for CUDA: remembers what was captured and on which thread it is replayed."""

    def __init__(self) -> None:
        self.captured, self.replayed = list[int](), list[int]()

    def __call__(self, run: Run) -> Run:
        self.captured.append(threading.get_ident())

        def replay() -> None:
            self.replayed.append(threading.get_ident())
            run()

        return replay


def test_a_graph_is_captured_once_a_bucket_and_replayed_ever_after(home: Path) -> None:
    capture = Recorded()
    path = ResidentPath(load_bundle(home), SOURCES, CPU, graphs=Graphs(CPU, capture))
    plain = Query(features={}, sources={"personal": 50}, count=10)
    for size in (1, 2, 3, 4, 5, 8, 1, 7):
        ask(path, [plain] * size)
    assert sorted(shape.batch for shape in path.programs) == [1, 2, 4, 8]
    assert len(capture.captured) == 4 and len(capture.replayed) == 8


def test_graphs_are_captured_again_on_the_thread_that_answers(home: Path) -> None:
    capture = Recorded()
    path = ResidentPath(load_bundle(home), SOURCES, CPU, graphs=Graphs(CPU, capture))
    plain = Query(features={}, sources={"personal": 50}, count=10)
    for size in (1, 2, 4):
        ask(path, [plain] * size)
    thread = threading.Thread(target=lambda: ask(path, [plain]))
    thread.start()
    thread.join()
    assert len(set(capture.captured[3:])) == 1 and len(capture.captured) == 6
    assert capture.captured[3] == capture.replayed[-1] != threading.get_ident()


def test_a_model_that_cannot_be_captured_runs_as_it_is_and_that_is_said_once(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(run: Run) -> Run:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    path = ResidentPath(load_bundle(home), SOURCES, CPU, graphs=Graphs(CPU, refuse))
    with caplog.at_level(logging.WARNING):
        found = ask(path, queries(1)) + ask(path, queries(5)[1:])
    compare(ask(both(home)[1], queries(5)), found)
    (record,) = caplog.records
    assert "operation not permitted when stream is capturing" in record.message


def test_a_path_on_the_cpu_captures_nothing() -> None:
    assert Graphs(CPU).capture is None
