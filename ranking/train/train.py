"""Training from end to end: data in, a model out. The same data, configuration and machine give the same model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch

from ranking.batch import SIGNALS
from ranking.errors import TrainingError
from ranking.index import IndexRecipe
from ranking.items import COLUMNS, STATS_AT, encode_items, popularity_of
from ranking.ranker import Ranker
from ranking.schema import ItemSchema, UserSchema
from ranking.statistics import inputs, statistics_of
from ranking.towers import UserTower
from ranking.train.config import TrainConfig
from ranking.train.content import Content
from ranking.train.data import Inputs, TrainingData, check, microseconds, raw, rows_of
from ranking.train.lists import make_lists
from ranking.train.neighbors import neighbors
from ranking.train.popularity import Popularity
from ranking.train.ranking import Retriever, fit_ranker
from ranking.train.retrieval import TowerTrainer
from ranking.train.save import Trained
from ranking.train.schema import category_relation, item_schema, price_relation, user_schema
from ranking.train.visits import Labels, make_labels, visit_numbers

FLAT_UP_TO = 50_000


class Progress(Protocol):
    """Called as training advances, in steps."""

    def __call__(self, done: int, total: int | None) -> None: ...


def silent(done: int, total: int | None) -> None:
    """The progress that nobody watches."""


def ranker_since(times: pd.Series[pd.Timestamp], config: TrainConfig) -> pd.Timestamp:
    """From when on labels teach the ranker, and so from when on `item_snapshots` are needed."""
    newest = times.sort_values().iloc[-config.max_examples :]
    return newest.iloc[int(len(newest) * (1 - config.ranker_share))]


def train(data: TrainingData, config: TrainConfig, progress: Progress = silent) -> Trained:
    """Raises TrainingError when no model can be made of the data."""
    check(data)
    with torch_for(config):
        return Training(data, config, progress).run()


@contextmanager
def torch_for(config: TrainConfig) -> Iterator[None]:
    """Torch's threads and seed for the length of a training; what others set stands again after it."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads or threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class Training:
    """One run. The towers learn from the older labels; the ranker from the newer, on candidates of towers and
    neighbours that have not seen them, or it would learn to trust its inputs more than serving will bear out; then the
    towers go on to the newest."""

    def __init__(self, data: TrainingData, config: TrainConfig, progress: Progress) -> None:
        self.data, self.config, self.progress = data, config, progress
        self.item_ids = data.items["item_id"].combine_chunks()
        examples = data.examples.sort_values("event_timestamp", kind="stable").iloc[-config.max_examples :]
        self.examples = examples.reset_index(drop=True)
        self.since = ranker_since(self.examples["event_timestamp"], config)
        self.item = item_schema(data, config)
        self.user = user_schema(data, self.item, config)
        self.labels = make_labels(self.examples, data.interactions, self.item_ids)
        if not len(self.labels):
            raise TrainingError("no example is of a known user and item")
        self.inputs = Inputs(self.examples, self.user, self.item_ids)
        self.done, self.total = 0, None

    def run(self) -> Trained:
        config, data = self.config, self.data
        tower_config, ranker_config = self.configs()
        content = Content(data.items, self.item, data.popularity)
        sizes = dict(tower_config)
        towers = TowerTrainer(self.inputs, content, len(self.item_ids), config, sizes)
        older = self.labels.where(self.labels.time < self.since.value // 1000)
        if not len(older):
            raise TrainingError("every example is of one instant: the ranker needs newer ones than the towers")
        towers.fit(older, config.epochs, config.learning_rate, self.step)
        embeddings = towers.embeddings(self.touched(older))
        retriever = Retriever(towers.user_tower, embeddings, *self.neighbors(self.since))
        ranker = Ranker(**ranker_config, item_embeddings=embeddings)
        self.fit_ranker(ranker, retriever)
        if config.refresh_epochs:
            towers.fit(self.labels, config.refresh_epochs, config.learning_rate * config.refresh_rate, self.step)
            embeddings = towers.embeddings(self.touched(self.labels))
        return self.trained(towers.user_tower, ranker, embeddings, tower_config, ranker_config)

    def fit_ranker(self, ranker: Ranker, retriever: Retriever) -> None:
        newer = self.labels.where(self.labels.time >= self.since.value // 1000)
        popularity = Popularity(self.data.items, self.item, self.data.item_snapshots, self.data.popularity)
        lists = make_lists(newer, self.inputs, retriever, popularity, self.config)
        users = retriever.users(self.inputs.take(torch.from_numpy(lists.state)))
        categorical = torch.from_numpy(encode_items(self.data.items, self.item)[1])
        fit_ranker(ranker, self.inputs, lists, users, retriever.embeddings, popularity, categorical, self.config,
                   self.step)  # fmt: skip

    def step(self) -> None:
        self.done += 1
        self.progress(self.done, self.total)

    def configs(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The keyword arguments of the user tower and of the ranker."""
        user = {
            "dense": len(self.user.dense),
            "categorical": [len(one.vocabulary) + 1 for one in self.user.categorical],
        }
        tower = user | {"history": self.config.history, "hidden": [self.config.hidden]}
        ranker = user | {
            "item_dense": len(self.item.dense),
            "item_categorical": [len(one.vocabulary) + 1 for one in self.item.categorical],
            "signals": len(SIGNALS),
            "hidden": [2 * self.config.ranker_hidden, self.config.ranker_hidden],
            "price": price_relation(self.data, self.user, self.item),
            "category": category_relation(self.data, self.user, self.item),
        }
        return tower, ranker

    def touched(self, labels: Labels) -> npt.NDArray[np.bool_]:
        return np.bincount(labels.item, minlength=len(self.item_ids)) > 0

    def neighbors(self, until: pd.Timestamp | None) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Co-visited items of the interactions strictly before `until`."""
        frame = self.data.interactions
        if until is not None:
            frame = frame[pd.to_datetime(frame["timestamp"], utc=True) < until]
        return covisited(frame, self.item_ids, self.config)

    def trained(self, tower: UserTower, ranker: Ranker, embeddings: torch.Tensor, tower_config: dict[str, Any],
                ranker_config: dict[str, Any]) -> Trained:  # fmt: skip
        tower.item_embeddings = ranker.item_embeddings = embeddings
        neighbor_rows, neighbor_scores = self.neighbors(None)
        return Trained(
            user=self.user, item=self.item, items=bundle_items(self.data, self.user, self.item),
            embeddings=embeddings.numpy(), tower=tower.eval().requires_grad_(False), tower_config=tower_config,
            ranker=ranker.eval().requires_grad_(False), ranker_config=ranker_config, neighbors=neighbor_rows,
            neighbor_scores=neighbor_scores, index=index_recipe(len(embeddings), self.config),
            statistics=statistics_of(self.user, {source: raw(self.examples[source]) for source in inputs(self.user)}),
        )  # fmt: skip


def covisited(interactions: pd.DataFrame, item_ids: pa.Array, config: TrainConfig) -> tuple[
    npt.NDArray[np.int32], npt.NDArray[np.float32]
]:  # fmt: skip
    frame = interactions.sort_values("timestamp", kind="stable")
    user = pd.factorize(frame["user_id"])[0].astype(np.int64)
    session = frame["session_id"].to_numpy(object)
    visit = visit_numbers(user, microseconds(frame["timestamp"]), None if pd.isna(session).all() else session)
    item = rows_of(pa.array(frame["item_id"], pa.string()), item_ids)
    return neighbors(visit[item >= 0], item[item >= 0], len(item_ids), config.neighbors)


def index_recipe(items: int, config: TrainConfig) -> IndexRecipe:
    """Flat while a scan costs less than a millisecond or so; then as many lists as four square roots, a power of 2."""
    if config.index != "auto":
        return IndexRecipe(config.index, config.nprobe)
    if items <= FLAT_UP_TO:
        return IndexRecipe("Flat")
    return IndexRecipe(f"IVF{1 << round(np.log2(4 * items**0.5))},Flat", config.nprobe)


def bundle_items(data: TrainingData, user: UserSchema, item: ItemSchema) -> pa.Table:
    """The columns that a bundle keeps, in its types."""
    table = data.items
    columns: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        columns[name] = pa.array(popularity_of(table)) if name == "popularity" else table[name].cast(kind)
    rest = [*item.columns(), *({STATS_AT} & set(table.column_names))]
    return pa.table(columns | {name: table[name] for name in rest if name not in columns})
