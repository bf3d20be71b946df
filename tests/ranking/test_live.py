"""Item changes in a loaded bundle: what is answered after them, and that nothing else moves."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ranking.batch import Allowed, Query, Ranked
from ranking.bundle import load_bundle
from ranking.engine import BatchPath
from ranking.filters.eligible import Eligible
from ranking.items import STATS_AT
from ranking.live import LiveItems
from ranking.resident.path import ResidentPath
from ranking.room import longer
from service.app import SOURCES
from tests.ranking.factory import CATEGORIES, make_bundle

HOME = {"personal": 100, "covisit": 50, "popular": 20}


@pytest.fixture(params=["Flat", "IVF16,Flat", "resident"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> BatchPath:
    if request.param == "resident":
        return ResidentPath(load_bundle(make_bundle(tmp_path, 400)), SOURCES, torch.device("cpu"))
    return BatchPath(load_bundle(make_bundle(tmp_path, 400, factory=request.param)), SOURCES, torch.device("cpu"))


def query(**changes: Any) -> Query:
    return replace(Query(features={"user_recent:item_ids": ["i00003", "i00007"]}, sources=HOME, count=20), **changes)


def ask(path: BatchPath, **changes: Any) -> Ranked:
    (ranked,) = path.recommend([query(**changes)], lambda stage: nullcontext())
    return ranked


def ids(path: BatchPath, ranked: Ranked) -> list[str]:
    return [path.bundle.items.ids[row] for row in ranked.rows]


def test_a_sold_out_item_is_gone_and_back_when_it_is_in_stock_again(path: BatchPath) -> None:
    before = ids(path, ask(path))
    path.change([(before[0], {"in_stock": False})])
    assert before[0] not in ids(path, ask(path, count=300))
    path.change([(before[0], {"in_stock": True})])
    assert ids(path, ask(path)) == before


def test_a_new_price_changes_filters_and_the_score_and_nothing_else(path: BatchPath) -> None:
    before, items = ask(path), path.bundle.items
    cheap = ids(path, before)[5]
    path.change([(cheap, {"price": 0.01})])
    assert items.price[items.row_of[cheap]] == np.float32(0.01)
    under = ask(path, allowed=Allowed(price_max=0.05))
    assert ids(path, under) == [cheap]
    after = ask(path)
    scores = dict(zip(ids(path, before), before.scores, strict=True))
    for one, score in zip(ids(path, after), after.scores, strict=True):
        if one in scores:
            assert (abs(score - scores[one]) > 1e-6) == (one == cheap)
    path.change([(cheap, {"price": None})])
    assert ids(path, ask(path, allowed=Allowed(price_max=0.05))) == []


def test_a_category_that_is_new_can_be_filtered_by(path: BatchPath) -> None:
    path.change([("i00011", {"category": "Sundials", "in_stock": True})])
    assert ids(path, ask(path, allowed=Allowed(frozenset({"Sundials"})))) == ["i00011"]


def test_a_removed_item_is_unknown_until_it_is_brought_back(path: BatchPath) -> None:
    first = ids(path, ask(path))[0]
    path.change([(first, {"removed": True})])
    path.change([(first, {"price": 3.0, "in_stock": True})])
    assert first not in ids(path, ask(path)) and first not in path.bundle.items.row_of
    path.change([(first, {"removed": False})])
    assert first in ids(path, ask(path, count=50))


def state(live: LiveItems, name: str) -> tuple[Any, ...]:
    """All that answers can show of one item."""
    items = live.bundle.items
    row = items.row_of.get(name)
    if row is None:
        return (live.knows(name),)
    category = items.categories[items.category[row]]
    inputs = items.dense[row].tolist(), items.categorical[row].tolist()
    return items.titles[row], category, str(items.price[row]), bool(items.in_stock[row]), inputs


@pytest.mark.parametrize("seed", range(6))
def test_a_worker_that_started_later_knows_what_one_that_ran_knows(tmp_path: Path, seed: int) -> None:
    """Any changes, one by one or in batches, and what they say together end alike: stock, price and place."""
    rng, directory = random.Random(seed), make_bundle(tmp_path, 40)
    names = ["i00001", "i00002", "i00003", "new1", "new2"]
    facts: list[dict[str, Any]] = [
        {"removed": True}, {"removed": False}, {"in_stock": True}, {"in_stock": False}, {"price": 2.5},
        {"price": None, "removed": True}, {"title": "Named", "category": CATEGORIES[1]}, {"category": CATEGORIES[2]},
        {"title": "Back", "removed": False}, {"removed": True, "in_stock": False},
    ]  # fmt: skip
    ran, together = LiveItems(load_bundle(directory)), dict[str, dict[str, Any]]()
    for _ in range(60):
        some = [(rng.choice(names), rng.choice(facts)) for _ in range(rng.randrange(1, 4))]
        ran.apply(some)
        for name, said in some:
            together.setdefault(name, {}).update(said)
        started = LiveItems(load_bundle(directory))
        started.apply(list(together.items()))
        assert {one: state(ran, one) for one in names} == {one: state(started, one) for one in names}


def test_an_item_that_was_sold_out_when_it_was_removed_is_sold_out_when_it_is_back(path: BatchPath) -> None:
    """Its stock is what was last said of it, also where that was said meanwhile."""
    first, second = ids(path, ask(path))[:2]
    path.change([(first, {"in_stock": False}), (second, {"removed": True})])
    path.change([(first, {"removed": True}), (second, {"in_stock": False})])
    path.change([(first, {"removed": False}), (second, {"removed": False})])
    assert not {first, second} & set(ids(path, ask(path, count=300)))
    assert {first, second} <= set(path.bundle.items.row_of)
    path.change([(first, {"in_stock": True})])
    assert first in ids(path, ask(path, count=50))


def test_a_new_item_is_retrieved_by_its_categorys_centroid(path: BatchPath) -> None:
    """It is nearest to a shopper who stands at the centroid, fits filters, and can be ranked and excluded."""
    items = path.bundle.items
    path.change([("new", {"title": "A new one", "category": CATEGORIES[1], "price": 5.0, "in_stock": True})])
    grown = path.bundle.items
    row = grown.row_of["new"]
    assert row == 400 == grown.learned and len(grown) == 401 and grown.titles[row] == "A new one"
    alike = items.embeddings[items.category == grown.category[row]]
    centre = alike.mean(0) / np.linalg.norm(alike.mean(0))
    assert np.allclose(grown.embeddings[row], centre, atol=1e-6)
    _, rows = path.index.search(centre[None].astype(np.float32), 3)
    assert row in rows[0]
    only = Allowed(frozenset({CATEGORIES[1]}), price_min=4.999, price_max=5.001)
    assert "new" in ids(path, ask(path, allowed=only))
    assert "new" not in ids(path, ask(path, allowed=only, exclude=["new"]))
    assert "new" in ids(path, ask(path, rank=["new", "i00001"], sources={"request": 2}))
    assert ask(path, item_id="new", sources={"similar": 20}, ranked=False).rows.size == 20


def test_the_source_new_finds_what_no_other_source_reaches(path: BatchPath) -> None:
    """Few among many learned items: only asked for by themselves are they candidates, and the ranker scores them."""
    path.change([("new", {"title": "A new one", "category": CATEGORIES[1], "price": 5.0})])
    others = {"personal": 10, "popular": 5}
    assert "new" not in ids(path, ask(path, sources=others, count=5, keep=50))
    found = ask(path, sources={**others, "new": 3}, count=5, keep=50)
    place = ids(path, found).index("new")
    assert found.source[place] == 2 and np.isfinite(found.scores[place])


def test_new_items_are_proposed_nearest_to_the_shopper_first_and_as_filters_allow(path: BatchPath) -> None:
    path.change([(f"new{n}", {"title": f"No. {n}", "category": one}) for n, one in enumerate(CATEGORIES)])

    def proposed(**changes: Any) -> list[str]:
        ranked = ask(path, **{"sources": {"new": 5, "popular": 5}, "count": 5, "ranked": False, **changes})
        return [one for one in ids(path, ranked) if one.startswith("new")]

    users, _ = path.encode([query(sources={"new": 5})])
    near = path.bundle.items.embeddings[400:] @ users.vectors[0]
    order = [f"new{n}" for n in np.argsort(-near)]
    assert proposed() == order and proposed(sources={"new": 2, "popular": 20}) == order[:2]
    assert proposed(exclude=order[:1]) == order[1:]
    kept = Allowed(frozenset({CATEGORIES[int(order[3][3:])]}))
    assert proposed(allowed=kept) == order[3:4]
    path.change([(order[0], {"in_stock": False}), (order[1], {"removed": True})])
    assert proposed() == order[2:]


def test_new_items_that_are_asked_for_come_back_behind_the_best(path: BatchPath) -> None:
    """As many as there are, at most so many, with scores that keep the order; what was best stays as it was."""
    path.change([(f"new{n}", {"title": f"No. {n}", "category": CATEGORIES[n]}) for n in range(3)])
    sources = {**HOME, "new": 5}
    best = ids(path, ask(path, sources=sources, count=2))
    every = ids(path, ask(path, sources=sources, count=2, keep=400))
    assert not any(one.startswith("new") for one in best)
    for wanted in (1, 3, 9):
        found = ask(path, sources=sources, count=2, new=wanted)
        assert ids(path, found) == [*best, *[one for one in every if one.startswith("new")][:wanted]]
        assert (np.diff(found.scores) <= 0).all() and np.isfinite(found.scores).all()


def test_without_new_items_the_source_new_proposes_nothing(path: BatchPath) -> None:
    sources = {"new": 5, "popular": 20}
    assert not (ask(path, sources=sources, ranked=False, keep=100).source == 0).any()


def test_a_history_of_items_that_the_model_has_not_learned_is_no_failure(path: BatchPath) -> None:
    before = ask(path)
    path.change([("new", {"title": "A new one", "category": CATEGORIES[0]})])
    after = ask(path, features={"user_recent:item_ids": ["i00003", "i00007", "new"]})
    kept = [one for one in ids(path, after) if one != "new"]
    assert kept[:15] == ids(path, before)[:15]


def test_many_new_items_one_by_one_keep_every_row_in_place(path: BatchPath) -> None:
    before = path.bundle.items.embeddings.copy()
    for n in range(300):
        path.change([(f"new{n}", {"title": f"No. {n}", "category": CATEGORIES[n % 3]})])
    items = path.bundle.items
    assert len(items) == 700 == len(items.price) == len(path.bundle.neighbors) == len(path.merger.marks)
    assert np.array_equal(items.embeddings[:400], before)
    assert items.rows(["new0", "new299"]).tolist() == [400, 699]
    assert len(ask(path, count=500).rows) == 500


def test_what_is_unknown_and_untitled_is_no_new_item(path: BatchPath) -> None:
    path.change([("ghost", {"price": 1.0}), ("gone", {"title": "x", "category": "y", "removed": True})])
    assert len(path.bundle.items) == 400


COLUMNS = ("category", "price", "in_stock", "popularity", "popular", "dense", "categorical", "embeddings", "stats_at")


def by_copy(path: BatchPath) -> BatchPath:
    """The same with no room behind any column: the first new item copies every one."""
    bundle = path.bundle
    columns = {name: getattr(bundle.items, name).copy() for name in COLUMNS}
    bundle.items = replace(bundle.items, **columns)
    bundle.neighbors, bundle.neighbor_scores = bundle.neighbors.copy(), bundle.neighbor_scores.copy()
    return BatchPath(bundle, SOURCES, torch.device("cpu"))


@pytest.mark.parametrize("seed", range(4))
def test_growing_in_place_equals_growing_by_copy(tmp_path: Path, seed: int) -> None:
    """Any changes, within the room and beyond it: every column, what is kept beside them, and every answer."""
    rng, directory = random.Random(seed), make_bundle(tmp_path, 300)
    ours, theirs = (BatchPath(load_bundle(directory), SOURCES, torch.device("cpu")) for _ in range(2))
    theirs, there = by_copy(theirs), {name: getattr(ours.bundle.items, name).ctypes.data for name in COLUMNS}
    fresh = 0
    for turn in range(30):
        changes: list[Any] = []
        for _ in range(rng.randrange(1, 9)):
            some = f"i{rng.randrange(300):05d}"
            fresh += 1
            changes += rng.choice([
                [(f"new{fresh}", {"title": "New", "category": rng.choice([*CATEGORIES, "Sundials"]), "price": 2.0})],
                [(some, {"price": rng.random()})], [(some, {"in_stock": rng.random() < 0.5})],
                [(some, {"category": rng.choice([*CATEGORIES, "Hats"])})], [(some, {"removed": rng.random() < 0.5})],
                [(some, {"events_30d": rng.randrange(9), "purchases_30d": rng.randrange(4), STATS_AT: 1e9 + turn})],
            ])  # fmt: skip
        if turn == 20:
            changes += [(f"more{n}", {"title": "One of many", "category": CATEGORIES[n % 5]}) for n in range(150)]
        ours.change(changes)
        theirs.change(changes)
        if turn < 20:
            assert {name: getattr(ours.bundle.items, name).ctypes.data for name in COLUMNS} == there
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(ours.bundle.items, name), getattr(theirs.bundle.items, name), name)
        assert np.array_equal(ours.bundle.neighbors, theirs.bundle.neighbors)
        sizes = len(ours.merger.marks), len(ours.covisits.place), len(ours.bundle.neighbor_scores)
        assert set(sizes) == {len(ours.bundle.items)} and (ours.covisits.place == -1).all()
        fresh_look = Eligible(ours.bundle.items)
        assert fresh_look.codes == ours.eligible.codes and fresh_look.out_of_stock == ours.eligible.out_of_stock
        found, expected = (ask(path, sources={**HOME, "new": 9}, new=3) for path in (ours, theirs))
        assert np.array_equal(found.rows, expected.rows) and np.array_equal(found.scores, expected.scores)


def test_an_array_grows_in_place_where_its_buffer_has_room() -> None:
    first = longer(np.arange(6.0).reshape(3, 2), 1, 9)
    second = longer(first, 2, 7)
    assert second.base is first.base and second.tolist() == [[0, 1], [2, 3], [4, 5], [9, 9], [7, 7], [7, 7]]
