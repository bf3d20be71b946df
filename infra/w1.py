"""The reference work W1 in memory, of any size and made up from a seed: items, models and shoppers, and no file.

64 numbers an item, 16 features and 20 recent items a shopper, 500 candidates, an MLP ranker, the top 20
(`load.peers`). Its items have no neighbours, as W1's have none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from load.peers.w1_deployment import ACTIVITY, MEAN, PROFILE, SCALE, WORDS
from load.peers.w1_models import Ranker, UserTower
from ranking.batch import Query
from ranking.bundle import Bundle, Manifest
from ranking.exported import ExportedRanker, ExportedTower
from ranking.index import ExactIndex, IndexRecipe
from ranking.items import item_table
from ranking.models import ModuleSpec
from ranking.schema import Dense, History, ItemSchema, UserSchema

WIDTH, ITEM_DENSE, HISTORY, CANDIDATES, ANSWERS = 64, 8, 20, 500, 20
RECENT = "user_recent:recent_items"
NAMES = [*(f"user_profile:{name}" for name in PROFILE), *(f"user_activity:{name}" for name in ACTIVITY)]


def schemas() -> tuple[UserSchema, ItemSchema]:
    words = {f"user_profile:{name}": tuple(values) for name, values in WORDS.items()}
    dense = tuple(
        Dense(name, "Float64", mean=mean, scale=scale, default=mean, vocabulary=words.get(name))
        for name, mean, scale in zip(NAMES, MEAN, SCALE, strict=True)
    )
    user = UserSchema("w1", dense, (), History(RECENT, "Array(String)", HISTORY))
    return user, ItemSchema(tuple(Dense(f"dense_{f}", "Float32") for f in range(ITEM_DENSE)), ())


def bundle(items: int, seed: int = 0) -> Bundle:
    """W1's models with random weights over so many made-up items, one in ten out of stock."""
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((items, WIDTH), np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    user, item = schemas()
    ids = pa.array(np.arange(items)).cast(pa.string())
    columns = {
        "item_id": ids, "title": ids,
        "category": pa.DictionaryArray.from_arrays(
            rng.integers(0, 20, items, np.int32), [f"c{n}" for n in range(20)]
        ).cast(pa.string()),
        "price": rng.lognormal(3, 0.8, items), "in_stock": rng.random(items) > 0.1, "popularity": rng.random(items),
    }  # fmt: skip
    columns |= {f"dense_{f}": rng.standard_normal(items, np.float32) for f in range(ITEM_DENSE)}
    table = item_table(pa.table(columns), embeddings, item, 0.0)
    shared, spec = torch.from_numpy(embeddings), ModuleSpec("in memory", {}, "none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = ExportedTower(UserTower(), ("dense", "history_embeddings", "history_mask"), shared)  # type: ignore[arg-type]
        inputs = ("dense", "history_embeddings", "history_mask", "item_dense", "item_embedding")
        ranker = ExportedRanker(Ranker(), inputs, shared)  # type: ignore[arg-type]
    manifest = Manifest(
        format=1, name="w1", version="1", created_at=datetime.now(UTC), user=user, item=item, dimension=WIDTH,
        user_tower=spec, ranker=spec, index=IndexRecipe(), metrics={}, files={},
    )  # fmt: skip
    models = (one.eval().requires_grad_(False) for one in (tower, ranker))
    nothing = np.zeros((items, 0), np.int32), np.zeros((items, 0), np.float32)
    return Bundle(Path("w1"), manifest, table, ExactIndex(embeddings), *models, *nothing)


def shoppers(items: int, size: int, seed: int = 1) -> list[Query]:
    """Requests as the service makes them: raw features by name, and the ids of recent items."""
    rng = np.random.default_rng(seed)
    recent = rng.integers(0, items, (size, HISTORY)).astype(str).tolist()
    numbers = np.abs(rng.normal(MEAN, 1 / np.abs(SCALE), (size, len(NAMES)))).tolist()
    queries = []
    for ids, row in zip(recent, numbers, strict=True):
        features: dict[str, object] = dict(zip(NAMES, row, strict=True))
        for name, values in WORDS.items():
            features[f"user_profile:{name}"] = values[int(rng.integers(len(values)))]
        queries.append(Query(features | {RECENT: ids}, {"personal": CANDIDATES}, ANSWERS))
    return queries
