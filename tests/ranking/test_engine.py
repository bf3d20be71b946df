"""The batch path on a real (untrained) bundle: what may be answered, in which order, and from which source."""

from __future__ import annotations

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
from ranking.errors import BundleError
from ranking.forward import FusedForward, TorchForward, forward
from ranking.resident.path import ResidentPath
from service.app import SOURCES
from tests.ranking.factory import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("models"), items=400))


@pytest.fixture(scope="module", params=["fused", "torch", "resident"])
def path(bundle: Bundle, request: pytest.FixtureRequest) -> BatchPath:
    """The batch path with the compiled models, with torch's, and a GPU's (on torch's CPU): every rule below holds for
    all of them."""
    cpu = torch.device("cpu")
    if request.param == "resident":
        return ResidentPath(load_bundle(bundle.path), SOURCES, cpu)
    models = forward(bundle, cpu) if request.param == "fused" else TorchForward(bundle, cpu)
    assert isinstance(models, FusedForward if request.param == "fused" else TorchForward)
    return BatchPath(bundle, SOURCES, cpu, models)


HOME = {"personal": 100, "covisit": 50, "popular": 20}


def query(**changes: Any) -> Query:
    return replace(Query(features={"user_recent:item_ids": ["i00003", "i00007"]}, sources=HOME, count=20), **changes)


def ask(path: BatchPath, *queries: Query) -> list[Ranked]:
    return path.recommend(queries, lambda stage: nullcontext())


def ids(path: BatchPath, ranked: Ranked) -> list[str]:
    return [path.bundle.items.ids[row] for row in ranked.rows]


def test_answers_are_distinct_in_stock_and_in_order_of_score(path: BatchPath) -> None:
    (ranked,) = ask(path, query(count=100))
    assert len(set(ranked.rows.tolist())) == len(ranked.rows) == 100
    assert path.bundle.items.in_stock[ranked.rows].all()
    assert (np.diff(ranked.scores) <= 0).all() and np.isfinite(ranked.scores).all()


def test_the_catalogue_has_items_out_of_stock_or_the_test_above_proves_nothing(bundle: Bundle) -> None:
    assert 0 < (~bundle.items.in_stock).sum() < len(bundle.items)


def test_a_query_gets_the_same_answer_alone_and_in_a_batch(path: BatchPath) -> None:
    """Padding, masks and neighbours in a batch change nothing but the last bits of a score."""
    queries = [
        query(),
        query(features={}, session=["i00001"]),
        query(features={}, sources={"popular": 30}, ranked=False),
        query(item_id="i00005", sources={"similar": 40}, ranked=False),
        query(allowed=Allowed(price_max=10.0)),
        query(rank=["i00001", "nobody", "i00002"], count=3, sources={"request": 3}),
    ]
    everything = [replace(one, keep=1000) for one in queries]
    for one, both in zip(everything, ask(path, *everything), strict=True):
        (alone,) = ask(path, one)
        scores = dict(zip(alone.rows.tolist(), alone.scores.tolist(), strict=True))
        # By item, because two scores that differ in their last bits may change places.
        assert scores == pytest.approx(dict(zip(both.rows.tolist(), both.scores.tolist(), strict=True)), abs=1e-4)


def test_excluded_items_never_appear_few_or_many(path: BatchPath) -> None:
    first = ids(path, ask(path, query(count=20))[0])
    for exclude in (first[:5], path.bundle.items.ids[:300]):
        answer = ids(path, ask(path, query(exclude=exclude))[0])
        assert len(answer) == 20 and not set(answer) & set(exclude)


@pytest.mark.parametrize("sources", [HOME, {"popular": 5}, {"personal": 5}])
def test_a_narrow_filter_is_filled_with_everything_that_passes_it(path: BatchPath, sources: dict[str, int]) -> None:
    """As many as there are, even when the quota is smaller than the count."""
    items = path.bundle.items
    category = items.categories[0]
    passing = items.in_stock & (items.category == 0) & (items.price <= 30)
    allowed = Allowed(frozenset([category]), None, 30.0)
    (ranked,) = ask(path, query(allowed=allowed, sources=sources, count=int(passing.sum())))
    assert sorted(ranked.rows.tolist()) == np.flatnonzero(passing).tolist()


def test_an_unknown_category_passes_nothing(path: BatchPath) -> None:
    assert len(ask(path, query(allowed=Allowed(frozenset(["no such"]))))[0].rows) == 0


def test_an_item_without_a_price_fails_any_price_condition(path: BatchPath) -> None:
    items = path.bundle.items
    unpriced = int(np.flatnonzero(np.isnan(items.price))[0])
    allowed = Allowed(price_min=0.0)
    (ranked,) = ask(path, query(allowed=allowed, sources={"popular": 400}, count=400))
    assert unpriced not in ranked.rows and len(ranked.rows)


def test_popular_comes_in_order_of_popularity(path: BatchPath) -> None:
    (ranked,) = ask(path, query(sources={"popular": 50}, ranked=False))
    in_stock = [row for row in path.bundle.items.popular if path.bundle.items.in_stock[row]]
    assert ranked.rows.tolist() == in_stock[:20]


def test_similar_leaves_out_the_item_in_view_and_puts_its_neighbours_first(path: BatchPath) -> None:
    bundle = path.bundle
    anchor = 5
    (ranked,) = ask(path, query(item_id=bundle.items.ids[anchor], sources={"similar": 300}, count=300, ranked=False))
    assert anchor not in ranked.rows
    cosine = bundle.items.embeddings[ranked.rows] @ bundle.items.embeddings[anchor]
    weight = {int(row): float(score) for row, score in
              zip(bundle.neighbors[anchor], bundle.neighbor_scores[anchor], strict=True) if row >= 0}  # fmt: skip
    best = max(weight.values())
    expected = cosine + np.array([weight.get(int(row), 0.0) / best for row in ranked.rows])
    np.testing.assert_allclose(ranked.scores, expected, rtol=1e-4, atol=1e-5)


def test_a_candidate_belongs_to_the_first_source_that_proposed_it(path: BatchPath) -> None:
    everything = len(path.bundle.items)
    (ranked,) = ask(path, query(sources={"popular": everything, "personal": everything}, count=everything))
    assert set(ranked.source.tolist()) == {0}


def test_rank_scores_just_the_items_given_and_drops_unknown_ones(path: BatchPath) -> None:
    wanted = ["i00009", "nobody", "i00004", "i00001"]
    (ranked,) = ask(path, query(rank=wanted, sources={"request": 4}, count=4))
    assert sorted(ids(path, ranked)) == ["i00001", "i00004", "i00009"]


def test_rank_and_recommend_give_an_item_the_same_score(path: BatchPath) -> None:
    (recommended,) = ask(path, query())
    (ranked,) = ask(path, query(rank=ids(path, recommended), sources={"request": 20}))
    scores = dict(zip(ranked.rows.tolist(), ranked.scores.tolist(), strict=True))
    assert scores == pytest.approx(
        dict(zip(recommended.rows.tolist(), recommended.scores.tolist(), strict=True)), abs=1e-4
    )


def test_session_items_are_newer_than_stored_ones_and_count(path: BatchPath) -> None:
    with_session = ask(path, query(session=["i00100"]))[0]
    stored = ask(path, query(features={"user_recent:item_ids": ["i00003", "i00007", "i00100"]}))[0]
    without = ask(path, query())[0]
    np.testing.assert_array_equal(with_session.rows, stored.rows)
    assert with_session.rows.tolist() != without.rows.tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "text", [1], None, True])
def test_no_raw_value_makes_a_score_that_is_no_number(path: BatchPath, bad: Any) -> None:
    features = dict.fromkeys(path.schema.references(), bad)
    (ranked,) = ask(path, query(features=features))
    assert len(ranked.rows) == 20 and np.isfinite(ranked.scores).all()


@pytest.mark.parametrize("content", [b"", b'{"format": 1', b"\xff", b'{"name": "\xff"}', b"[]"])
def test_a_damaged_manifest_is_said_to_be_damaged(tmp_path: Path, content: bytes) -> None:
    home = make_bundle(tmp_path, items=50)
    (home / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json: is damaged, or no manifest: "):
        load_bundle(home)


def test_loading_refuses_a_bundle_whose_files_are_not_the_manifest_s(tmp_path: Path) -> None:
    home = make_bundle(tmp_path, items=50)
    for name in sorted(entry.name for entry in home.iterdir() if entry.name != "manifest.json"):
        whole = (home / name).read_bytes()
        (home / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BundleError, match="SHA-256"):
            load_bundle(home)
        (home / name).write_bytes(whole[:-1])
        with pytest.raises(BundleError, match="bytes, the manifest says"):
            load_bundle(home)
        (home / name).unlink()
        with pytest.raises(BundleError, match="is missing"):
            load_bundle(home)
        (home / name).write_bytes(whole)
    (home / "extra.pkl").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"extra.pkl: is not in the manifest"):
        load_bundle(home)
    (home / "extra.pkl").unlink()
    load_bundle(home)
