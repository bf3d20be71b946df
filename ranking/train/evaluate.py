"""Evaluation: the model beside popularity, co-visitation and retrieval alone, on visits held out in time.

Each ranks the whole catalogue for each shopper; what is out of stock or was bought before is left in, because shoppers
buy again and because the truth knows no stock. Truth items that are not in the catalogue count as missed.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch

from ranking.errors import TrainingError
from ranking.items import encode_items
from ranking.train.data import Inputs, microseconds, rows_of
from ranking.train.metrics import hits, ndcg, recall
from ranking.train.ranking import Retriever
from ranking.train.save import Trained

Ints = npt.NDArray[np.int64]
PERSONAL, COVISIT = 150, 100
K = 50
BLOCK = 64
DAY_US = 86_400_000_000
POPULAR_DAYS = (7, 30)
MODEL, RETRIEVAL, POPULAR, COVISITED = "model", "retrieval alone", "popularity", "co-visitation"


class Scores(msgspec.Struct, frozen=True):
    """Means over `users` shoppers."""

    users: int
    recall_10: float
    recall_50: float
    ndcg_10: float


class Evaluation(msgspec.Struct, frozen=True):
    """`scores[bucket][ranking]`; buckets are `all`, `known` (with events before the cut) and `new`.

    `popularity_days` is the window that served popularity best, chosen on these very cases, in its favour.
    """

    cut: str
    held_out_items: float
    popularity_days: int
    scores: dict[str, dict[str, Scores]]

    def metrics(self) -> dict[str, dict[str, float]]:
        """The bucket `all` as a manifest keeps it: ranking -> metric -> value."""
        return {
            name: {"recall@10": one.recall_10, "recall@50": one.recall_50, "ndcg@10": one.ndcg_10}
            for name, one in self.scores["all"].items()
        }


def evaluate(trained: Trained, cases: pd.DataFrame, interactions: pd.DataFrame, cut: pd.Timestamp) -> Evaluation:
    """Ranks the catalogue for each case (`holdout_cases`, with a column a feature reference) and compares.

    `trained` must have learned from before the cut only; of `interactions` only those before it are counted.
    Raises TrainingError without cases.
    """
    if not len(cases):
        raise TrainingError(f"nobody has an event at or after {cut}: there is nothing to evaluate on")
    item_ids = trained.items["item_id"].combine_chunks()
    truth = [rows_of(pa.array(ids, pa.string()), item_ids) for ids in cases["item_ids"]]
    held_out = np.array([len(ids) for ids in truth])
    rankings = ranked_by_model(trained, Inputs(cases, trained.user, item_ids))
    popular = {days: most_popular(interactions, item_ids, cut, days) for days in POPULAR_DAYS}
    spread = {days: np.broadcast_to(rows, (len(cases), len(rows))) for days, rows in popular.items()}
    days = max(spread, key=lambda days: float(recall(hits(spread[days], truth), held_out, 10).mean()))
    rankings[POPULAR] = spread[days]
    known = cases["known"].to_numpy(bool)
    buckets = {"all": np.ones(len(cases), bool), "known": known, "new": ~known}
    found = {name: hits(ranked, truth) for name, ranked in rankings.items()}
    return Evaluation(
        cut=str(cut),
        held_out_items=float(held_out.mean()),
        popularity_days=days,
        scores={
            bucket: {name: score(found[name][mask], held_out[mask]) for name in (MODEL, RETRIEVAL, POPULAR, COVISITED)}
            for bucket, mask in buckets.items()
            if mask.any()
        },
    )


def score(hit: npt.NDArray[np.bool_], held_out: Ints) -> Scores:
    return Scores(
        users=len(hit),
        recall_10=float(recall(hit, held_out, 10).mean()),
        recall_50=float(recall(hit, held_out, K).mean()),
        ndcg_10=float(ndcg(hit, held_out, 10).mean()),
    )


@torch.inference_mode()
def ranked_by_model(trained: Trained, inputs: Inputs) -> dict[str, Ints]:
    """int64[n, K] rows, best first, of the whole model, of retrieval alone, and of co-visitation."""
    embeddings = torch.from_numpy(trained.embeddings)
    retriever = Retriever(trained.tower, embeddings, trained.neighbors, trained.neighbor_scores)
    dense, categorical = (torch.from_numpy(one) for one in encode_items(trained.items, trained.item))
    out: dict[str, list[Ints]] = {MODEL: [], RETRIEVAL: [], COVISITED: []}
    for which in torch.split(torch.arange(len(inputs)), BLOCK):
        state = inputs.take(which)
        history = state[2].numpy()
        users = retriever.users(state)
        rows, signal = retriever.candidates(history, users, PERSONAL, COVISIT)
        at = torch.from_numpy(rows).clamp(min=0)
        scores = trained.ranker(
            users, *state, at, embeddings[at], dense[at], categorical[at], torch.from_numpy(signal)[:, :, None]
        )
        ordered = np.where(rows >= 0, scores.numpy(), -np.inf).argsort(1, kind="stable")[:, ::-1]
        out[MODEL].append(padded(np.take_along_axis(rows, ordered, 1)))
        out[RETRIEVAL].append(padded(rows))
        out[COVISITED].append(np.concatenate([padded(retriever.covisited(one, K)[0][None]) for one in history]))
    return {name: np.concatenate(parts) for name, parts in out.items()}


def padded(rows: Ints) -> Ints:
    return np.pad(rows[:, :K], ((0, 0), (0, max(0, K - rows.shape[1]))), constant_values=-1)


def most_popular(interactions: pd.DataFrame, item_ids: pa.Array, cut: pd.Timestamp, days: int) -> Ints:
    """The K items with the most events in the `days` before the cut."""
    time, end = microseconds(interactions["timestamp"]), cut.value // 1000
    recent = interactions[(time < end) & (time >= end - days * DAY_US)]
    rows = rows_of(pa.array(recent["item_id"], pa.string()), item_ids)
    counts = np.bincount(rows[rows >= 0], minlength=len(item_ids))
    return np.argsort(-counts, kind="stable")[:K].astype(np.int64)


Ranking = Callable[[Inputs], Ints]
