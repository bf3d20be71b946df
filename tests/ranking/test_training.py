"""Training and evaluation on a small shop with a planted taste: what is learned, measured, and may not leak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from ranking.bundle import load_bundle
from ranking.errors import TrainingError
from ranking.statistics import Numbers, Words
from ranking.train.config import TrainConfig
from ranking.train.data import POPULARITY, TrainingData
from ranking.train.evaluate import evaluate
from ranking.train.holdout import before, cut_time, holdout_cases
from ranking.train.metrics import hits, ndcg, recall
from ranking.train.neighbors import neighbors
from ranking.train.retrieval import sampled_softmax
from ranking.train.save import Trained, save
from ranking.train.train import train
from tests.ranking.factory import make_trained

START = pd.Timestamp("2026-01-01", tz="UTC")
GROUPS, PER_GROUP, USERS, VISITS = 8, 10, 120, 12
ITEMS = [f"i{n:03d}" for n in range(GROUPS * PER_GROUP)]
CONFIG = TrainConfig(
    dimension=16, hidden=32, epochs=6, batch_size=256, ranker_examples=600, ranker_steps=150, threads=1
)


def planted(seed: int = 0) -> TrainingData:
    """Shopper u likes group u % GROUPS: three of four touches are of it, the fourth of anything popular."""
    rng = np.random.default_rng(seed)
    zipf = 1 / np.arange(1, len(ITEMS) + 1)
    rows = []
    for user in range(USERS):
        own = np.arange(PER_GROUP) + (user % GROUPS) * PER_GROUP
        for visit in range(VISITS):
            at = START + pd.Timedelta(days=visit * 2 + rng.random(), hours=user % 12)
            for place in range(4):
                item = rng.choice(own) if rng.random() < 0.75 else rng.choice(len(ITEMS), p=zipf / zipf.sum())
                rows.append(
                    (f"u{user}", ITEMS[item], "view", at + pd.Timedelta(minutes=place), f"s{user}.{visit}", 1.0)
                )
    columns = ["user_id", "item_id", "event", "timestamp", "session_id", "weight"]
    interactions = pd.DataFrame(rows, columns=columns).sort_values("timestamp", kind="stable").reset_index(drop=True)
    recent = interactions.groupby("user_id")["item_id"].transform(lambda ids: pd.Series(range(len(ids)), ids.index))
    histories = interactions.groupby("user_id")["item_id"].agg(list)
    examples = pd.DataFrame(
        {
            "user_id": interactions["user_id"],
            "item_id": interactions["item_id"],
            "event_timestamp": interactions["timestamp"] - pd.Timedelta(microseconds=1),
            "weight": 1.0,
            "user_profile:avg_price": 5.0,
            "user_profile:top_category": "c",
            "user_recent:item_ids": [
                histories[u][max(0, n - 10) : n] for u, n in zip(interactions["user_id"], recent, strict=True)
            ],
            "user_recent:purchased_item_ids": [[] for _ in range(len(interactions))],
        }
    )
    days = pd.date_range(START, interactions["timestamp"].max(), freq="D")
    snapshots = pd.DataFrame({"item_id": ITEMS * len(days), "event_timestamp": np.repeat(days, len(ITEMS))})
    for name in POPULARITY:
        snapshots[name] = 1
    items = pa.table(
        {"item_id": ITEMS, "title": ITEMS, "category": ["c"] * len(ITEMS), "price": [5.0] * len(ITEMS),
         "in_stock": [True] * len(ITEMS)} | {name: pa.array([1] * len(ITEMS), pa.int64()) for name in POPULARITY}
    )  # fmt: skip
    references = {
        "user_profile:avg_price": "Float32", "user_profile:top_category": "String",
        "user_recent:item_ids": "Array(String)", "user_recent:purchased_item_ids": "Array(String)",
    }  # fmt: skip
    return TrainingData(examples, items, snapshots, interactions, references, {"user_recent": None}, "default")


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return planted()


@pytest.fixture(scope="module")
def cut(data: TrainingData) -> pd.Timestamp:
    return cut_time(data.interactions["timestamp"], 0.15)


@pytest.fixture(scope="module")
def twin(data: TrainingData, cut: pd.Timestamp) -> Trained:
    return train(before(data, cut), CONFIG)


def cases(data: TrainingData, cut: pd.Timestamp) -> pd.DataFrame:
    joined = holdout_cases(data.interactions, cut)
    features = data.examples.drop(columns=["item_id", "weight"]).drop_duplicates(["user_id", "event_timestamp"])
    return joined.merge(features, on=["user_id", "event_timestamp"], how="left")


def test_the_model_finds_a_planted_taste_that_popularity_cannot(
    data: TrainingData, cut: pd.Timestamp, twin: Trained
) -> None:
    found = evaluate(twin, cases(data, cut), data.interactions, cut).scores["all"]
    assert found["model"].recall_10 > 2 * found["popularity"].recall_10
    assert found["retrieval alone"].recall_10 > 2 * found["popularity"].recall_10
    assert found["co-visitation"].recall_10 > found["popularity"].recall_10


def test_the_statistics_of_a_models_items_are_of_the_newest_snapshot_before_the_cut(
    cut: pd.Timestamp, twin: Trained
) -> None:
    at = twin.items["stats_at"].to_pandas().dropna()
    assert len(at) and (at < cut).all() and at.max() >= cut - pd.Timedelta(days=1)


def test_nothing_at_or_after_the_cut_reaches_training(data: TrainingData, cut: pd.Timestamp) -> None:
    """Whatever is done to the events after the cut, the twin is the same."""
    later = data.interactions["timestamp"] >= cut
    changed_interactions = data.interactions.copy()
    changed_interactions.loc[later, "item_id"] = ITEMS[0]
    changed_examples = data.examples.copy()
    changed_examples.loc[later, "item_id"] = ITEMS[0]
    snapshots = data.item_snapshots.copy()
    snapshots.loc[snapshots["event_timestamp"] >= cut, list(POPULARITY)] = 999
    changed = TrainingData(
        changed_examples, data.items, snapshots, changed_interactions, data.references, data.max_age_s, "default"
    )
    quick = TrainConfig(dimension=8, hidden=8, epochs=1, ranker_examples=100, ranker_steps=5, threads=1)
    one, other = train(before(data, cut), quick), train(before(changed, cut), quick)
    np.testing.assert_array_equal(one.embeddings, other.embeddings)
    np.testing.assert_array_equal(one.neighbors, other.neighbors)
    for name, tensor in one.ranker.state_dict().items():
        assert torch.equal(tensor, other.ranker.state_dict()[name]), name
    assert one.items.equals(other.items)


def test_the_same_seed_gives_the_same_model(data: TrainingData) -> None:
    quick = TrainConfig(dimension=8, hidden=8, epochs=1, ranker_examples=100, ranker_steps=5, threads=1)
    one, other = train(data, quick), train(data, quick)
    np.testing.assert_array_equal(one.embeddings, other.embeddings)


def test_a_saved_model_loads_with_the_same_numbers(twin: Trained, tmp_path: Path) -> None:
    bundle = load_bundle(save(twin, tmp_path, "default", {"model": {"recall@10": 0.5}}))
    np.testing.assert_array_equal(bundle.items.embeddings, twin.embeddings)
    dense, history = torch.zeros(1, len(twin.user.dense)), torch.tensor([[-1] * (CONFIG.history - 1) + [3]])
    categorical = torch.zeros(1, len(twin.user.categorical), dtype=torch.int64)
    with torch.inference_mode():
        assert torch.equal(
            bundle.user_tower(dense, categorical, history), twin.tower.eval()(dense, categorical, history)
        )
    assert bundle.manifest.metrics == {"model": {"recall@10": 0.5}}


def test_a_model_keeps_what_its_user_inputs_looked_like_in_its_examples(data: TrainingData, twin: Trained) -> None:
    """Also in the bundle, of the examples before the cut that the twin learned from."""
    found = twin.statistics
    assert set(found) == {one.source for one in (*twin.user.dense, *twin.user.categorical)}
    price, category = found["user_profile:avg_price"], found["user_profile:top_category"]
    assert isinstance(price, Numbers) and (price.least, price.most) == (5.0, 5.0)
    assert isinstance(category, Words) and category.shares == {"c": 1.0}
    assert 0 < price.examples == category.examples < len(data.examples)


def test_a_tower_s_answer_has_unit_length_for_any_history() -> None:
    """Empty, partly filled and full histories; padding changes nothing."""
    tower = make_trained(50).tower.eval()
    dense, categorical = torch.zeros(3, 16), torch.zeros(3, 2, dtype=torch.int64)
    history = torch.full((3, 20), -1)
    history[1, -2:] = torch.tensor([4, 5])
    history[2] = torch.arange(20)
    with torch.inference_mode():
        users = tower(dense, categorical, history)
        assert torch.isfinite(users).all()
        torch.testing.assert_close(users.norm(dim=1), torch.ones(3))
        assert not torch.allclose(users[0], users[1])


def test_sampling_correction_subtracts_the_log_of_a_negative_s_share() -> None:
    """Yi et al. 2019: a softmax over <user, item> / temperature - log q, accidental hits left out."""
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((2, 4, 3)).astype(np.float32)
    rows, log_q = np.array([0, 1, 2, 1]), np.log([0.5, 0.3, 0.2, 0.3]).astype(np.float32)
    logits = users @ items.T / 0.5 - log_q
    expected = []
    for i in range(4):
        others = [j for j in range(4) if j == i or rows[j] != rows[i]]
        expected.append(np.log(np.exp(logits[i, others]).sum()) - logits[i, i])
    tensors = [torch.from_numpy(one) for one in (users, items, rows, log_q)]
    found = sampled_softmax(*tensors, weight=torch.tensor([1.0, 2.0, 3.0, 4.0]), temperature=0.5)
    assert float(found) == pytest.approx(float(np.average(expected, weights=[1, 2, 3, 4])), rel=1e-5)


def test_metrics_equal_hand_computed_ones() -> None:
    ranked = np.array([[1, 2, 3], [4, 5, 6]])
    truth = [np.array([2, 9]), np.array([7])]
    hit = hits(ranked, truth)
    held_out = np.array([2, 1])
    np.testing.assert_allclose(recall(hit, held_out, 3), [0.5, 0.0])
    np.testing.assert_allclose(recall(hit, held_out, 1), [0.0, 0.0])
    ideal = 1 + 1 / np.log2(3)
    np.testing.assert_allclose(ndcg(hit, held_out, 3), [(1 / np.log2(3)) / ideal, 0.0])


def test_neighbors_equal_a_plain_count_over_pairs() -> None:
    rng = np.random.default_rng(1)
    visit, item = np.sort(rng.integers(0, 30, 200)), rng.integers(0, 12, 200)
    rows, scores = neighbors(visit, item, 12, 11)
    visits = [sorted(set(item[visit == v].tolist())) for v in range(30) if (visit == v).any()]
    popularity = np.array([sum(i in one for one in visits) for i in range(12)])
    for a in range(12):
        expected = {}
        for b in range(12):
            together = [one for one in visits if a in one and b in one]
            if a != b and together:
                weight = sum(1 / np.log2(1 + len(one)) for one in together)
                count = len(together)
                expected[b] = weight / np.sqrt(popularity[a] * popularity[b]) * count / (count + 1)
        found = {int(row): float(score) for row, score in zip(rows[a], scores[a], strict=True) if row >= 0}
        assert found == pytest.approx(expected, rel=1e-5)


def test_holdout_is_each_shopper_s_last_visit_after_the_cut(data: TrainingData, cut: pd.Timestamp) -> None:
    held = holdout_cases(data.interactions, cut)
    for user, at, ids in zip(held["user_id"], held["event_timestamp"], held["item_ids"], strict=True):
        theirs = data.interactions[data.interactions["user_id"] == user]
        last = theirs[theirs["session_id"] == theirs["session_id"].iloc[-1]]
        after = last[last["timestamp"] >= cut]
        assert (
            sorted(set(after["item_id"])) == ids and at < after["timestamp"].min() and at >= cut - pd.Timedelta("1us")
        )


def test_too_little_to_learn_from_is_said(data: TrainingData) -> None:
    with pytest.raises(TrainingError, match="no event lies before"):
        cut_time(data.interactions["timestamp"].iloc[:1], 0.5)
    empty = TrainingData(
        data.examples.iloc[:0], data.items, data.item_snapshots, data.interactions, data.references, {}, "default"
    )
    with pytest.raises(TrainingError, match="no examples"):
        train(empty, CONFIG)
