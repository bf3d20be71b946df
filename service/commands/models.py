"""The commands that make models: features and labels from one room, training and evaluation in the other."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from rich.table import Table

from features.errors import InputError
from features.files import replace_file
from features.registry import service_features
from features.shop import Shop, read_shop
from features.store import open_store
from features.training import examples, point_in_time
from ranking.bundle import load_bundle
from ranking.errors import TrainingError
from ranking.forward import forward
from ranking.train.data import POPULARITY, TrainingData
from ranking.train.evaluate import Evaluation
from ranking.train.evaluate import evaluate as evaluate_model
from ranking.train.holdout import before, cut_time, holdout_cases
from ranking.train.popularity import newest
from ranking.train.save import save
from ranking.train.train import ranker_since
from ranking.train.train import train as train_model
from service.commands.registry import say_next
from service.console import Step, console, step
from service.deployment import Deployment

MODEL = "default"


def train(directory: Path, *, evaluate: bool) -> None:
    """Trains on all events, after measuring a twin that has not seen the newest ones, and writes the next version.

    A shop too small to hold anything out is trained on all the same, without figures.
    """
    here = Deployment.at(directory)
    shop, data, cut = gather(here)
    metrics = {}
    if evaluate:
        try:
            found = measure(here, shop, data, cut)
            show(found)
            metrics = found.metrics()
        except TrainingError as error:
            console.print(f"  no evaluation: {error}", soft_wrap=True, markup=False)
    with step("Training on everything") as running:
        trained = train_model(data, here.config.train, running)
        path = here.registry.publish(MODEL, lambda models: save(trained, models, MODEL, metrics, here.shop_id()))
        running.report.read = {"examples": len(data.examples), "items": data.items.num_rows}
        running.report.wrote = {str(path): 1}
    with step("Compiling for this CPU"):  # kept for the processes that serve it
        forward(load_bundle(path), torch.device("cpu"))
    say_next(here, MODEL, path.name)


def evaluate(directory: Path, json: Path | None) -> None:
    """Trains on the older events, measures on the newest, prints the figures and writes them where asked."""
    here = Deployment.at(directory)
    if json is not None:
        check_writable(json)
    shop, data, cut = gather(here)
    found = measure(here, shop, data, cut)
    show(found)
    if json is not None:
        replace_file(json, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        console.print(f"  wrote: {json}", markup=False)


def check_writable(path: Path) -> None:
    """Raises InputError where no file can stand, so that minutes of work do not end in a refusal."""
    if path.is_dir():
        raise InputError("is a directory", file=path)
    if not path.parent.is_dir():
        raise InputError("no such directory", file=path.parent)
    if not os.access(path.parent, os.W_OK):
        raise InputError("may not be written to", file=path.parent)


def gather(here: Deployment) -> tuple[Shop, TrainingData, pd.Timestamp]:
    """All that training reads, joined as of each label's time, and the time from which on evaluation holds out."""
    config = here.config
    shop = read_shop(here.data)
    if not here.features.is_dir():
        raise InputError("no such directory; `endcap materialize` makes it", file=here.features)
    with step("Joining features as of each event") as running:
        service = service_features(open_store(here.repo), MODEL, "user")
        interactions = interactions_of(shop, config.events.weights)
        cut = cut_time(interactions["timestamp"], config.train.holdout)
        labels = examples(shop.events, weights=config.events.weights, limit=config.train.max_examples)
        labels = point_in_time(here.repo, labels, list(service.types), running)
        running.report.read = {"examples": len(labels), "user features": len(service.types)}
    older = labels["event_timestamp"][labels["event_timestamp"] < cut]
    with step("Joining item popularity day by day") as running:
        since = ranker_since(older if len(older) else labels["event_timestamp"], config.train)
        snapshots = item_snapshots(here, shop, since, running)
        running.report.read = {"item days": len(snapshots)}
    zeros = pa.array(np.zeros(shop.items.num_rows, np.int64))
    items = shop.items
    for name in POPULARITY:
        items = items.append_column(name, zeros)
    data = TrainingData(
        examples=labels,
        items=newest(snapshots, items, POPULARITY, snapshots["event_timestamp"].max() + pd.Timedelta(seconds=1)),
        item_snapshots=snapshots,
        interactions=interactions,
        references=service.types,
        max_age_s={view.name: view.max_age_s for view in service.views},
        feature_service=MODEL,
    )
    return shop, data, cut


def interactions_of(shop: Shop, weights: dict[str, float]) -> pd.DataFrame:
    """The events that count, each with its kind's weight."""
    frame: pd.DataFrame = shop.events.select(["user_id", "item_id", "event", "timestamp", "session_id"]).to_pandas()
    frame = frame[frame["event"].isin(list(weights))].reset_index(drop=True)
    frame["weight"] = frame["event"].map(weights).astype(float)
    if not len(frame):
        raise InputError(f"no event of the kinds {', '.join(weights)} ([events.weights])", file="events.parquet")
    return frame


def item_snapshots(here: Deployment, shop: Shop, since: pd.Timestamp, running: Step) -> pd.DataFrame:
    """Every item's popularity at each midnight from `since` on, and at the newest event."""
    last = pd.Timestamp(shop.events["timestamp"].to_pylist()[-1])
    days = [*pd.date_range(since.floor("D"), last, freq="D"), last]
    ids = shop.items["item_id"].to_pylist()
    asked = pd.DataFrame({"item_id": ids * len(days), "event_timestamp": np.repeat(pd.DatetimeIndex(days), len(ids))})
    joined = point_in_time(here.repo, asked, [f"item_stats:{name}" for name in POPULARITY], running)
    joined = joined.rename(columns={f"item_stats:{name}": name for name in POPULARITY})
    known: pd.DataFrame = joined.dropna(subset=list(POPULARITY))
    return known.reset_index(drop=True)


def measure(here: Deployment, shop: Shop, data: TrainingData, cut: pd.Timestamp) -> Evaluation:
    """Trains on what came before the cut, and compares on each shopper's last visit after it."""
    with step(f"Training on events before {cut:%Y-%m-%d %H:%M}, to measure on what came after") as running:
        twin = train_model(before(data, cut), here.config.train, running)
    with step("Evaluating") as running:
        cases = point_in_time(here.repo, holdout_cases(data.interactions, cut), list(data.references), running)
        found = evaluate_model(twin, cases, data.interactions, cut)
        running.report.read = {"shoppers with held-out events": len(cases)}
    return found


def show(found: Evaluation) -> None:
    """The comparison as a table: all shoppers, then those with events before the cut, then new ones."""
    for bucket, scores in found.scores.items():
        users = next(iter(scores.values())).users
        table = Table(title=f"{bucket} shoppers ({users:,}), each one's last visit held out", title_justify="left")
        table.add_column("")
        for name in ("Recall@10", "Recall@50", "NDCG@10"):
            table.add_column(name, justify="right")
        for name, one in scores.items():
            label = f"popularity ({found.popularity_days} days)" if name == "popularity" else name
            table.add_row(label, *(f"{value:.4f}" for value in (one.recall_10, one.recall_50, one.ndcg_10)))
        console.print(table)


def busy_user(here: Deployment) -> str:
    """The shopper with the most events of the last 30 days: the one to show in a demo."""
    events = read_shop(here.data).events.select(["user_id", "timestamp"]).to_pandas()
    recent = events[events["timestamp"] > events["timestamp"].max() - pd.Timedelta(days=30)]
    return str(recent["user_id"].value_counts(sort=True).index[0])


def titles(here: Deployment, item_ids: list[str]) -> list[str]:
    """The titles of items, in the order given."""
    items = read_shop(here.data).items
    title = dict(zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True))
    return [title[one] for one in item_ids if one in title]
