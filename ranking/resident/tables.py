"""The item table on a device, as long as the vectors beside it (`ranking.resident.search.Nearest`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ranking.batch import Rows
from ranking.bundle import Bundle
from ranking.covisit import RECENCY_DECAY
from ranking.items import ItemTable
from ranking.resident.search import Nearest


class Tables:
    """Columns by row: dense f32[room, F], categorical i64[room, G], category i64[room], price f32[room], and `closed`
    [room] of the vectors' short type: 0 for what is in stock, minus infinity for what is not or is no item at all.

    They are written in place, so that a CUDA graph that reads them stays true, until there are more items than room.
    """

    def __init__(self, bundle: Bundle, nearest: Nearest) -> None:
        self.nearest, self.device, self.room = nearest, nearest.device, 0
        self.neighbors = torch.from_numpy(np.ascontiguousarray(bundle.neighbors)).to(self.device)
        self.neighbor_scores = torch.from_numpy(np.ascontiguousarray(bundle.neighbor_scores)).to(self.device)
        self.lay_out(bundle.items)

    def lay_out(self, items: ItemTable, rows: Rows | None = None) -> None:
        """Takes the item table as it is now; where `rows` are given, no other row is other than before, stock apart."""
        if rows is None or self.room != self.nearest.room:
            self.room, rows = self.nearest.room, np.arange(len(items))
            self.dense = self.empty(torch.float32, items.dense.shape[1])
            self.categorical = self.empty(torch.int64, items.categorical.shape[1])
            self.category, self.price = self.empty(torch.int64), self.empty(torch.float32)
            self.closed = torch.full((self.room,), -torch.inf, dtype=self.nearest.dtype, device=self.device)
            self.in_stock = np.zeros(0, bool)
        at = torch.from_numpy(rows).to(self.device)
        for there, column in (
            (self.dense, items.dense), (self.categorical, items.categorical),
            (self.category, items.category), (self.price, items.price),
        ):  # fmt: skip
            there[at] = self.sent(column[rows]).to(there.dtype)
        self.stock(items.in_stock)

    def stock(self, in_stock: npt.NDArray[np.bool_]) -> None:
        """Takes what is in stock now: bool[N]. What was removed is not, and has no row by its name any more."""
        known = np.zeros(len(in_stock), bool)
        known[: len(self.in_stock)] = self.in_stock
        changed = np.flatnonzero(known != in_stock)
        if len(changed):
            bias = np.where(in_stock[changed], np.float32(0), np.float32(-np.inf))
            self.closed[self.sent(changed)] = self.sent(bias).to(self.closed.dtype)
        self.in_stock = in_stock.copy()

    def empty(self, kind: torch.dtype, *width: int) -> torch.Tensor:
        return torch.zeros(self.room, *width, dtype=kind, device=self.device)

    def sent(self, column: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(column)).to(self.device)

    def signals(self, history: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """What `Covisits` says of rows i64[B, C] (-1 empty) for a history i64[B, L]: f32[B, C, 1].

        Every neighbour of the history, sorted by row, and a running sum over them: what lies between the first and the
        last of one row is that row's sum.
        """
        if not self.neighbors.shape[1]:
            return torch.zeros(*rows.shape, 1, device=self.device)
        present, at = history >= 0, history.clamp(min=0)
        steps_back = present.flip(1).cumsum(1).flip(1) - 1
        weights = (RECENCY_DECAY ** steps_back.double()) * present
        found = self.neighbors[at].long().masked_fill(~present.unsqueeze(2), -1)
        sums = (self.neighbor_scores[at].double() * weights.unsqueeze(2)).masked_fill(found < 0, 0.0)
        keys, order = found.flatten(1).sort(1)
        running = torch.nn.functional.pad(sums.flatten(1).gather(1, order).cumsum(1), (1, 0))
        ends = [torch.searchsorted(keys, rows, right=right) for right in (False, True)]
        return (running.gather(1, ends[1]) - running.gather(1, ends[0])).float().unsqueeze(2)
