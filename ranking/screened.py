"""The forward pass of a ranker that could be taken apart (`ranking.factor`), on one core of the CPU.

A candidate's share of the first layer is read from a table, a shopper's is made with their vector. Where an int8 copy
of the next layer is faster on this CPU (measured when the bundle is loaded), it screens the candidates and only the
best of them are scored in float32 (`ranking.screen`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ranking.batch import Rows, Scores
from ranking.bundle import Bundle
from ranking.exported import ExportedRanker, ExportedTower, user_inputs
from ranking.factor import Factored, Mlp, factor, item_table
from ranking.items import ItemTable
from ranking.layers import Fused, fits
from ranking.room import longer
from ranking.screen import Exact, Screen, hide, settle
from ranking.traced import traced
from ranking.users import I64, Users

LEAST_EXACT = 60
"""How many of the best by the screen are scored exactly at the least."""
LOWEST = np.float32(-np.inf)


class ShopperSide(nn.Module):
    """Both things that a shopper's inputs are needed for: the tower's vector, and the ranker's first layer."""

    def __init__(self, tower: nn.Module, factored: Factored, embeddings: Tensor) -> None:
        super().__init__()
        self.tower, self.side, self.inputs = tower, factored.user, factored.user_inputs
        self.register_buffer("item_embeddings", embeddings, persistent=False)

    def forward(self, dense: Tensor, categorical: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        tower = self.tower
        wanted = (*self.inputs, *(tower.inputs if isinstance(tower, ExportedTower) else ()))
        given = user_inputs(wanted, self.item_embeddings, dense, categorical, history)
        if isinstance(tower, ExportedTower):  # what both look at is looked up once
            user = tower.program(*(given[name] for name in tower.inputs))
        else:
            user = tower(dense, categorical, history)
        given["user"] = user
        return user, self.side(*(given[name] for name in self.inputs))


class ScreenedForward:
    """`screen`: whether to screen; None measures which is faster."""

    wants_signals = False  # `factor` takes no ranker apart that looks at them

    def __init__(self, bundle: Bundle, factored: Factored, *, screen: bool | None = None) -> None:
        self.factored = factored
        schema, rng = bundle.schema, np.random.default_rng(0)
        self.lay_out(bundle.items)
        shared = torch.from_numpy(np.ascontiguousarray(bundle.items.embeddings))
        side = ShopperSide(bundle.user_tower, factored, shared)
        codes = len(schema.categorical)
        examples = [
            (
                torch.from_numpy(rng.standard_normal((size, len(schema.dense)), np.float32)),
                torch.zeros(size, codes, dtype=torch.int64),
                torch.from_numpy(rng.integers(-1, bundle.items.learned, (size, schema.history.length))),
            )
            for size in (2, 1, 3)
        ]
        self.shopper: Callable[..., tuple[Tensor, Tensor]] = traced(side, examples)
        hidden = [(torch.randn(1, size, factored.width),) for size in (7, 1, 60)]
        self.rest: Callable[..., Tensor] = traced(factored.rest, hidden)
        self.mlp = None if factored.mlp is None else exact_layers(factored.mlp)
        self.screen = None if factored.mlp is None or screen is False else near_layers(factored.mlp)
        if self.screen is not None and screen is None and not self.is_faster():
            self.screen = None

    def lay_out(self, items: ItemTable, rows: Rows | None = None) -> None:
        at = slice(None) if rows is None else rows
        columns: dict[str, npt.NDArray[Any]] = {
            "rows": np.arange(len(items)) if rows is None else rows, "item_embedding": items.embeddings[at],
            "item_dense": items.dense[at], "item_categorical": items.categorical[at],
        }  # fmt: skip
        inputs = [torch.from_numpy(np.ascontiguousarray(columns[name])) for name in self.factored.item_inputs]
        found = item_table(self.factored.item, inputs, self.factored.width)
        if rows is None:
            self.table: npt.NDArray[np.float32] = found
            return
        if len(items) > len(self.table):
            self.table = longer(self.table, len(items) - len(self.table), 0)
        self.table[rows] = found

    @torch.inference_mode()
    def users(self, dense: Scores, categorical: I64, history: I64, needed: bool = True) -> Users:
        vectors, first = self.shopper(*(torch.from_numpy(one) for one in (dense, categorical, history)))
        return Users(dense, categorical, history, vectors.numpy(), [first])

    def scores(self, users: Users, rows: Rows, signals: Scores, keep: Sequence[int]) -> Scores:
        """Minus infinity also for candidates that cannot be among the best `keep` of their query."""
        out = np.full(rows.shape, LOWEST)
        first = users.on_device[0].numpy()
        for b, (one, most) in enumerate(zip(rows, keep, strict=True)):
            if one.min(initial=0) >= 0:
                out[b] = self.one(first[b], one, most)
            else:
                there = np.flatnonzero(one >= 0)
                out[b, there] = self.one(first[b], one[there], most)
        return squash(out) if self.factored.mlp is not None and self.factored.mlp.squashed else out

    def one(self, first: Scores, rows: Rows, keep: int) -> Scores:
        """f32[C] of one shopper, before the sigmoid of layers that end in one."""
        most = max(LEAST_EXACT, 2 * keep + 20)
        if self.screen is None or len(rows) < 2 * most:
            return self.exact(first, rows)
        near = self.screen.scores(self.table, first, rows)
        order = np.argpartition(near, len(rows) - most)
        exact = self.exact(first, rows[order[len(rows) - most :]])
        scores = np.full(len(rows), LOWEST)
        return scores if settle(near, order, exact, keep, scores) else self.exact(first, rows)

    def exact(self, first: Scores, rows: Rows) -> Scores:
        """f32[C] of one shopper, all of them in float32."""
        if self.mlp is not None:
            return self.mlp.scores(self.table, first, rows)
        hidden = torch.empty(1, len(rows), self.factored.width)
        hide(self.table, first, rows, hidden[0].numpy(), LOWEST)
        with torch.inference_mode():
            found: Scores = self.rest(hidden)[0].numpy()
        return found

    def is_faster(self, candidates: int = 500, tries: int = 7) -> bool:
        """Whether screening pays on this CPU, for an answer of 20 from so many candidates."""
        rng = np.random.default_rng(0)
        first = rng.standard_normal(self.factored.width).astype(np.float32)
        rows = rng.integers(0, len(self.table), candidates)
        screen, took = self.screen, dict[bool, float]()
        for on in (True, False) * tries:
            self.screen = screen if on else None
            began = time.perf_counter()
            self.one(first, rows, 20)
            took[on] = min(took.get(on, np.inf), time.perf_counter() - began)
        self.screen = screen
        return took[True] < took[False]


def near_layers(mlp: Mlp) -> Fused | Screen:
    """What says in int8 who is far behind."""
    return Fused(mlp, exact=False) if fits(mlp, exact=False) else Screen(mlp)


def exact_layers(mlp: Mlp) -> Fused | Exact:
    return Fused(mlp, exact=True) if fits(mlp, exact=True) else Exact(mlp)


def squash(scores: Scores) -> Scores:
    """The sigmoid; minus infinity stays."""
    return np.where(np.isneginf(scores), scores, 1 / (1 + np.exp(-scores)))


def screened(bundle: Bundle) -> ScreenedForward | None:
    """None where the bundle's ranker is no program that can be taken apart."""
    if not isinstance(bundle.ranker, ExportedRanker):
        return None
    factored = factor(bundle.ranker.program, bundle.ranker.inputs)
    return None if factored is None else ScreenedForward(bundle, factored)
