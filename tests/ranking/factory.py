"""A small valid bundle with random weights, the same for the same seed, for tests that need a model but no quality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ranking.index import IndexRecipe
from ranking.ranker import Ranker
from ranking.schema import Categorical, Dense, History, ItemSchema, UserSchema
from ranking.towers import UserTower
from ranking.train.save import Trained, save

CATEGORIES = ("Bags", "Candles", "Kitchen", "Lamps", "Toys")
COUNTRIES = ("France", "Germany", "United Kingdom")
WINDOWS = ("1h", "24h", "7d", "30d")
COUNTERS = [f"user_activity:{kind}_{window}" for kind in ("views", "carts", "purchases") for window in WINDOWS]
ITEM_COUNTERS = ("events_24h", "events_7d", "events_30d", "purchases_7d", "purchases_30d")
MAX_AGE_S: dict[str, float | None] = {"user_profile": None, "user_activity": 3600.0, "user_recent": None}


def user_schema(history: int = 20) -> UserSchema:
    counters = tuple(Dense(name, "Int64", "log1p", 1.0, 0.8) for name in COUNTERS)
    return UserSchema(
        feature_service="default_v1",
        dense=(
            Dense("user_profile:tenure_days", "Float32", "log1p", 3.0, 0.7),
            Dense("user_profile:orders", "Int64", "log1p", 1.0, 1.0),
            Dense("user_profile:avg_price", "Float32", "log1p", 2.5, 1.2, 11.0),
            *counters,
            Dense("user_activity:spend_30d", "Float32", "log1p", 2.0, 0.5),
        ),
        categorical=(
            Categorical("user_profile:country", "String", COUNTRIES),
            Categorical("user_profile:top_category", "String", CATEGORIES),
        ),
        history=History("user_recent:item_ids", "Array(String)", history),
        purchased="user_recent:purchased_item_ids",
        max_age_s=MAX_AGE_S,
    )


def item_schema() -> ItemSchema:
    counters = tuple(Dense(name, "Int64", "log1p", 2.0, 0.6) for name in ITEM_COUNTERS)
    return ItemSchema(
        dense=(Dense("price", "Float64", "log1p", 2.5, 1.2, 11.0), *counters),
        categorical=(Categorical("category", "String", CATEGORIES),),
    )


def item_columns(items: int, rng: np.random.Generator) -> pa.Table:
    """Ids i00000, i00001, …; one item in ten out of stock, one in twenty without a price, popularity by Zipf."""
    category = rng.integers(0, len(CATEGORIES), items)
    price = np.round(rng.lognormal(3.0, 0.8, items), 2)
    counts = np.floor(rng.permutation(1000.0 / np.arange(1, items + 1)))
    counted = {name: (counts / (i + 1)).astype(np.int64) for i, name in enumerate(ITEM_COUNTERS)}
    columns = {
        "item_id": [f"i{row:05d}" for row in range(items)],
        "title": [f"{CATEGORIES[code]} no. {row}" for row, code in enumerate(category)],
        "category": [CATEGORIES[code] for code in category],
        "price": pa.array([None if row % 20 == 7 else price[row] for row in range(items)], pa.float64()),
        "in_stock": [row % 10 != 4 for row in range(items)],
        "popularity": (counted["events_30d"] + counted["purchases_30d"]).astype(float),
    }
    return pa.table(columns | counted)


def make_trained(items: int = 200, *, dimension: int = 16, history: int = 20, neighbors: int = 10,
                 factory: str = "Flat", seed: int = 0) -> Trained:  # fmt: skip
    """A model with random weights over made-up items."""
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((items, dimension)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    near = np.argsort(-(embeddings @ embeddings.T), axis=1, kind="stable")[:, 1 : neighbors + 1].astype(np.int32)
    scores = -np.sort(-rng.random(near.shape), axis=1).astype(np.float32)
    near[::7, neighbors // 2 :], scores[::7, neighbors // 2 :] = -1, 0.0
    user, item = user_schema(history), item_schema()
    shared = torch.from_numpy(embeddings)
    sizes = [len(one.vocabulary) + 1 for one in user.categorical]
    item_sizes = [len(one.vocabulary) + 1 for one in item.categorical]
    tower_config: dict[str, Any] = {"dense": len(user.dense), "categorical": sizes, "history": history, "hidden": [32]}
    ranker_config: dict[str, Any] = {
        "dense": len(user.dense), "categorical": sizes, "item_dense": len(item.dense),
        "item_categorical": item_sizes, "signals": 1, "hidden": [32, 16],
        "price": [0, 2.5, 1.2, 2, 2.5, 1.2], "category": [0, 1],
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tower = UserTower(**tower_config, item_embeddings=shared)
        ranker = Ranker(**ranker_config, item_embeddings=shared)
    return Trained(
        user=user, item=item, items=item_columns(items, rng), embeddings=embeddings, tower=tower,
        tower_config=tower_config, ranker=ranker, ranker_config=ranker_config, neighbors=near,
        neighbor_scores=scores, index=IndexRecipe(factory, 4),
    )  # fmt: skip


def make_bundle(directory: Path, items: int = 200, *, name: str = "default", dimension: int = 16, history: int = 20,
                factory: str = "Flat", seed: int = 0) -> Path:  # fmt: skip
    """Writes `directory/<name>/<next version>` and returns it."""
    trained = make_trained(items, dimension=dimension, history=history, factory=factory, seed=seed)
    return save(trained, directory, name, {"untrained": {"recall@10": 0.0}})
