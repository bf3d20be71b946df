"""The feature schema, made from the data that a model is trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ranking.errors import TrainingError
from ranking.schema import Categorical, Dense, History, ItemSchema, UserSchema
from ranking.train.config import TrainConfig
from ranking.train.data import TrainingData, numbers
from ranking.values import word

NUMERIC = {"Int32", "Int64", "Float32", "Float64", "Bool"}
WORDS = {"String"}
BASIC = ("item_id", "title", "category", "in_stock")
LOG_ABOVE = 10.0
"""What is never negative and goes beyond this is taken as a count or an amount, whose logarithm is what matters."""


def user_schema(data: TrainingData, items: ItemSchema, config: TrainConfig) -> UserSchema:
    """One input a reference: numbers dense, strings categorical, the history a history. Other lists feed nothing.

    Raises TrainingError when the history is not among the references.
    """
    if data.references.get(data.history) != "Array(String)":
        raise TrainingError(f"{data.history} is to be the history, but is no Array(String) reference")
    dense, categorical = [], []
    categories = next((one.vocabulary for one in items.categorical if one.source == "category"), ())
    for name, kind in data.references.items():
        if kind in NUMERIC:
            dense.append(number_input(name, kind, numbers(data.examples[name])))
        elif kind in WORDS and name == data.top_category:
            categorical.append(Categorical(name, kind, categories))
        elif kind in WORDS:
            categorical.append(Categorical(name, kind, vocabulary(data.examples[name].tolist(), config.vocabulary)))
    return UserSchema(
        feature_service=data.feature_service,
        dense=tuple(dense),
        categorical=tuple(categorical),
        history=History(data.history, "Array(String)", config.history),
        purchased=data.purchased,
        max_age_s=dict(data.max_age_s),
    )


def item_schema(data: TrainingData, config: TrainConfig) -> ItemSchema:
    """Price, popularity and every other numeric column dense; category and every other string column categorical."""
    dense, categorical = [], [Categorical("category", "String", columns_words(data.items, "category", config))]
    for name in data.items.column_names:
        kind = data.items.schema.field(name).type
        if name in BASIC:
            continue
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            categorical.append(Categorical(name, "String", columns_words(data.items, name, config)))
        elif name in data.popularity:
            values = np.concatenate([numbers(data.item_snapshots[name]), column(data.items, name)])
            dense.append(number_input(name, "Int64", values))
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            dense.append(number_input(name, "Float64", column(data.items, name)))
    return ItemSchema(dense=tuple(dense), categorical=tuple(categorical))


def column(items: pa.Table, name: str) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = items[name].cast("double").to_numpy()
    return values


def columns_words(items: pa.Table, name: str, config: TrainConfig) -> tuple[str, ...]:
    return vocabulary(items[name].to_pylist(), config.vocabulary)


def number_input(source: str, kind: str, values: npt.NDArray[np.float64]) -> Dense:
    """Standardized by what is there. A missing count is none; any other missing number is the usual one.

    A number that never varies gets scale 0: whatever it may be one day, the model has learned nothing of it.
    """
    present = values[np.isfinite(values)]
    if not len(present):
        return Dense(source, kind, scale=0.0)
    default = 0.0 if kind.startswith("Int") else float(np.median(present))
    log = bool(present.min() >= 0 and present.max() > LOG_ABOVE)
    x = np.where(np.isfinite(values), values, default)
    x = np.log1p(x) if log else x
    spread = float(x.std())
    scale = 1 / spread if spread > 1e-6 else 0.0
    return Dense(source, kind, "log1p" if log else "identity", float(x.mean()), scale, default)


def vocabulary(values: Sequence[object], size: int, least: int = 2) -> tuple[str, ...]:
    """The most frequent words, at most `size`, each seen at least `least` times; by frequency, then alphabet."""
    counts = pd.Series(list(values), dtype=object).value_counts()  # leaves out what is missing
    kept = sorted((-count, word(value)) for value, count in counts.items() if count >= least and word(value))
    return tuple(text for _, text in kept[:size])


def price_relation(data: TrainingData, user: UserSchema, item: ItemSchema) -> list[float]:
    """The ranker's `price` argument; empty where an item's price and the user's average cannot be compared."""
    ours = place(item.dense, "price")
    theirs = place(user.dense, data.average_price)
    if ours < 0 or theirs < 0:
        return []
    a, b = item.dense[ours], user.dense[theirs]
    if a.transform != b.transform or not a.scale or not b.scale:
        return []
    return [ours, a.mean, a.scale, theirs, b.mean, b.scale]


def category_relation(data: TrainingData, user: UserSchema, item: ItemSchema) -> list[int]:
    """The ranker's `category` argument; empty where the user has no category of their own."""
    ours, theirs = place(item.categorical, "category"), place(user.categorical, data.top_category)
    return [ours, theirs] if ours >= 0 and theirs >= 0 else []


def place(inputs: Sequence[Dense | Categorical], source: str | None) -> int:
    return next((i for i, one in enumerate(inputs) if one.source == source), -1)
