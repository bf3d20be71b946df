"""Both models of a bundle on one device: the user tower's vectors and the ranker's scores, from arrays to arrays.

On a CPU our own architectures run as compiled functions (`ranking.fused`), and a ranker of a user's own that can be
taken apart runs so (`ranking.screened`), where they say what the torch modules say. Everywhere else torch runs them,
traced, so that a forward pass is one call into torch instead of one an operation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ranking.batch import SIGNALS, Rows, Scores
from ranking.bundle import Bundle, made_up
from ranking.exported import on_device
from ranking.fused.ranker import RankerWeights, ranker_weights, score
from ranking.fused.tower import TowerWeights, tower_weights, user_vectors
from ranking.items import ItemTable
from ranking.ranker import Ranker
from ranking.screened import screened
from ranking.towers import UserTower
from ranking.traced import traced
from ranking.users import I64, Users

log = logging.getLogger(__name__)


class Forward(Protocol):
    """What the batch path asks of the two models. `wants_signals`: whether the ranker looks at them."""

    wants_signals: bool

    def lay_out(self, items: ItemTable, rows: Rows | None = None) -> None:
        """Takes the item table as it is now; where `rows` are given, no other row is other than before."""
        ...

    def users(self, dense: Scores, categorical: I64, history: I64, needed: bool = True) -> Users:
        """Runs the user tower, unless nothing needs its vectors."""
        ...

    def scores(self, users: Users, rows: Rows, signals: Scores, keep: Sequence[int]) -> Scores:
        """The ranker's f32[B, C] for rows i64[B, C], minus infinity where they are -1, and signals f32[B, C, S].

        Only the best `keep` of each query need be right; minus infinity may stand for the others.
        """
        ...


def forward(bundle: Bundle, device: torch.device) -> Forward:
    """The fastest that this bundle has on this device."""
    if device.type != "cpu":
        return TorchForward(bundle, device)
    weights = fusible(bundle)
    faster: Forward | None = screened(bundle) if weights is None else FusedForward(bundle, *weights)
    if faster is None:
        return TorchForward(bundle, device)
    # As they are: torch keeps what it has traced for as long as the process lives, megabytes a version.
    if (apart := difference(bundle, TorchForward(bundle, device, trace=False), faster)) > 1e-3:
        log.warning("%s: the compiled models differ from torch's by %.2g; torch's are used", bundle.key, apart)
        return TorchForward(bundle, device)
    return faster


def fusible(bundle: Bundle) -> tuple[TowerWeights, RankerWeights] | None:
    """The weights of both models, where both are of an architecture that is compiled."""
    tower, ranker = bundle.user_tower, bundle.ranker
    if type(tower) is not UserTower or type(ranker) is not Ranker:
        return None
    weights = ranker_weights(ranker)
    return None if weights is None else (tower_weights(tower), weights)


def difference(bundle: Bundle, one: Forward, other: Forward) -> float:
    """The farthest that two say apart of one made-up batch."""
    schema, size, width = bundle.schema, 3, 70
    rng = np.random.default_rng(0)
    learned = bundle.items.learned
    history = rng.integers(-1, learned, (size, schema.history.length))
    history[1] = -1
    rows = rng.integers(0, learned, (size, width))
    rows[0, : schema.history.length] = np.maximum(history[0], 0)[:width]
    dense = rng.normal(scale=4.0, size=(size, len(schema.dense))).astype(np.float32)
    codes = [rng.integers(0, len(words.vocabulary) + 1, size) for words in schema.categorical]
    categorical = np.stack(codes, 1) if codes else np.zeros((size, 0), np.int64)
    signals = rng.random((size, width, len(SIGNALS)), np.float32)
    said = []
    for model in (one, other):
        users = model.users(dense, categorical, history)
        said.append((users.vectors, model.scores(users, rows, signals, [width] * size)))
    return max(float(np.abs(a - b).max(initial=0)) for a, b in zip(*said, strict=True))


class FusedForward:
    """Compiled, on one core of the CPU."""

    wants_signals = True

    def __init__(self, bundle: Bundle, tower: TowerWeights, ranker: RankerWeights) -> None:
        self.tower, self.ranker = tower, ranker
        self.lay_out(bundle.items)

    def lay_out(self, items: ItemTable, rows: Rows | None = None) -> None:
        tables = (items.embeddings, items.dense)  # views, as they are laid out so already
        self.embeddings, self.item_dense = (np.ascontiguousarray(one, np.float32) for one in tables)
        self.item_categorical = np.ascontiguousarray(items.categorical, np.int64)

    def users(self, dense: Scores, categorical: I64, history: I64, needed: bool = True) -> Users:
        vectors = np.zeros((len(dense), self.embeddings.shape[1]), np.float32)
        if needed:
            user_vectors(self.tower, self.embeddings, dense, categorical, history, vectors)
        return Users(dense, categorical, history, vectors)

    def scores(self, users: Users, rows: Rows, signals: Scores, keep: Sequence[int]) -> Scores:
        out = np.empty(rows.shape, np.float32)
        score(
            self.ranker, self.embeddings, self.item_dense, self.item_categorical,
            users.vectors, users.dense, users.categorical, users.history, rows, signals, out,
        )  # fmt: skip
        return out


class TorchForward:
    """Torch on any device; the tables stay there, and the shoppers until they are ranked."""

    wants_signals = True

    tower: Callable[..., Any]
    ranker: Callable[..., Any]

    def __init__(self, bundle: Bundle, device: torch.device, *, trace: bool = True) -> None:
        """`trace`: whether a forward pass is to be one call, which takes a while to make."""
        self.device, self.dimension = device, bundle.manifest.dimension
        tower, ranker = on_device(bundle.user_tower, device), on_device(bundle.ranker, device)
        self.tower, self.ranker = self.traced(bundle, tower, ranker) if trace else (tower, ranker)
        self.lay_out(bundle.items)

    def traced(self, bundle: Bundle, tower: nn.Module, ranker: nn.Module) -> Sequence[Callable[..., Any]]:
        device = self.device
        sizes = [made_up(bundle, batch, candidates) for batch, candidates in ((2, 7), (1, 11), (3, 5))]
        users = [[one.to(device) for one in user] for user, _ in sizes]
        with torch.inference_mode():
            ranked = [
                [tower(*user), *(one.to(device) for one in rest)] for user, (_, rest) in zip(users, sizes, strict=True)
            ]
        return traced(tower, users), traced(ranker, ranked)

    def lay_out(self, items: ItemTable, rows: Rows | None = None) -> None:
        tables: list[npt.NDArray[Any]] = [np.ascontiguousarray(items.embeddings), items.dense, items.categorical]
        if rows is None or len(items) > len(self.tables[0]):
            self.tables: list[torch.Tensor] = [torch.from_numpy(table).to(self.device) for table in tables]
        elif self.device.type != "cpu":  # where they are the item table's own memory
            at = torch.from_numpy(rows).to(self.device)
            for there, table in zip(self.tables, tables, strict=True):
                there[at] = torch.from_numpy(table[rows]).to(self.device)

    @torch.inference_mode()
    def users(self, dense: Scores, categorical: I64, history: I64, needed: bool = True) -> Users:
        inputs = [torch.from_numpy(one).to(self.device) for one in (dense, categorical, history)]
        vectors = self.tower(*inputs) if needed else torch.zeros(len(dense), self.dimension, device=self.device)
        return Users(dense, categorical, history, vectors.float().cpu().numpy(), [vectors, *inputs])

    @torch.inference_mode()
    def scores(self, users: Users, rows: Rows, signals: Scores, keep: Sequence[int]) -> Scores:
        if not rows.shape[1]:
            return np.zeros(rows.shape, np.float32)
        at = torch.from_numpy(rows).to(self.device).clamp(min=0)
        items = [take(table, at) for table in self.tables]
        out = self.ranker(*users.on_device, at, *items, torch.from_numpy(signals).to(self.device))
        return np.where(rows >= 0, out.float().cpu().numpy(), np.float32(-np.inf))


def take(table: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """table [N, F], at i64[B, C] -> [B, C, F]. `index_select` copies rows in a third of the time of indexing."""
    return table.index_select(0, at.view(-1)).view(*at.shape, -1)
