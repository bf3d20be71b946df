"""One batch on a device, from the inputs of the models to the best items: encode, filter, search, score, select.

Sizes are fixed (`Shape`), so that it can be captured as a CUDA graph: what a query does not need is padded, and what is
padded is never among an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ranking.resident.search import Nearest
from ranking.resident.staging import Block
from ranking.resident.tables import Tables
from ranking.schema import UserSchema


@dataclass(frozen=True, slots=True)
class Shape:
    """At most so many queries, candidates a query, answers a query, excluded rows a query, and categories (0: no query
    has a filter)."""

    batch: int
    candidates: int
    keep: int
    excluded: int
    categories: int


class Program:
    """Reads `inputs`, writes `outputs`.

    inputs   dense f32[B, D], categorical i64[B, K], history i64[B, L], quota i64[B] (how many candidates),
             excluded i64[B, X] (rows, -2 where none); and with filters categories bool[B, G] (which may be answered),
             priced bool[B] (whether a price is asked for), least and most f32[B]
    outputs  rows i64[B, keep] (-1 empty), scores f32[B, keep], found f32[B, keep] (the inner products), size i64[B]
             (how many candidates there were), sure bool[B] (see `Nearest.top`), encoded and ranked bool[B] (whether
             the models said numbers)
    """

    def __init__(
        self, shape: Shape, schema: UserSchema, tower: nn.Module, ranker: nn.Module, nearest: Nearest, tables: Tables
    ) -> None:
        self.shape, self.tower, self.ranker, self.nearest, self.tables = shape, tower, ranker, nearest, tables
        batch, f32, i64, b8 = shape.batch, torch.float32, torch.int64, torch.bool
        fields = {
            "dense": (f32, (batch, len(schema.dense))), "categorical": (i64, (batch, len(schema.categorical))),
            "history": (i64, (batch, schema.history.length)), "quota": (i64, (batch,)),
            "excluded": (i64, (batch, shape.excluded)),
        }  # fmt: skip
        if shape.categories:
            fields |= {"categories": (b8, (batch, shape.categories)), "priced": (b8, (batch,))}
            fields |= {"least": (f32, (batch,)), "most": (f32, (batch,))}
        self.inputs = Block(fields, nearest.device)
        self.inputs.arrays["history"].fill(-1)
        best = (batch, shape.keep)
        out = {"rows": (i64, best), "scores": (f32, best), "found": (f32, best), "size": (i64, (batch,))}
        said = dict.fromkeys(("sure", "encoded", "ranked"), (b8, (batch,)))
        self.outputs = Block(out | said, nearest.device)

    @torch.inference_mode()
    def run(self) -> None:
        given, out = self.inputs.tensors, self.outputs.tensors
        users = [given["dense"], given["categorical"], given["history"]]
        vectors = self.tower(*users).float()
        found, rows, sure = self.retrieve(vectors)
        scores = self.score(vectors, users, rows)
        keep = self.shape.keep
        best, order = scores.sort(dim=1, descending=True, stable=True)  # of equal ones the first that was found
        out["rows"].copy_(rows.gather(1, order)[:, :keep])
        out["scores"].copy_(best[:, :keep])
        out["found"].copy_(found.gather(1, order)[:, :keep])
        out["size"].copy_((rows >= 0).sum(1))
        out["sure"].copy_(sure)
        out["encoded"].copy_((vectors < torch.inf).all(1))
        out["ranked"].copy_((scores < torch.inf).all(1))

    def retrieve(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The `quota` nearest that may be answered: found f32[B, C], rows i64[B, C], and `Nearest.top`'s sure."""
        shape, given = self.shape, self.inputs.tensors
        passing = self.passing if shape.categories else None
        deep = min(shape.candidates + shape.excluded, self.nearest.room)
        found, rows, sure = self.nearest.top(vectors, deep, self.tables.closed, passing)
        if shape.excluded:
            barred = (rows.unsqueeze(2) == given["excluded"].unsqueeze(1)).any(2)
            found, order = found.masked_fill(barred, -torch.inf).sort(dim=1, descending=True, stable=True)
            rows = rows.gather(1, order)
        found, rows = found[:, : shape.candidates], rows[:, : shape.candidates]
        place = torch.arange(shape.candidates, device=rows.device)
        empty = torch.isneginf(found) | (place >= given["quota"].unsqueeze(1))
        return found, rows.masked_fill(empty, -1), sure

    def passing(self, start: int, stop: int) -> torch.Tensor:
        """Which of these rows pass each query's filter: bool[B, n]. A price that is unknown passes no price filter."""
        given, price = self.inputs.tensors, self.tables.price[start:stop]
        cheap = (price >= given["least"].unsqueeze(1)) & (price <= given["most"].unsqueeze(1))
        wanted = given["categories"].index_select(1, self.tables.category[start:stop])
        return wanted & (cheap | ~given["priced"].unsqueeze(1))

    def score(self, vectors: torch.Tensor, users: list[torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        """The ranker's f32[B, C], minus infinity where a row is -1."""
        tables, at = self.tables, rows.clamp(min=0)
        flat, shape = at.view(-1), (*at.shape, -1)
        items = [
            one.index_select(0, flat).view(shape) for one in (self.nearest.vectors, tables.dense, tables.categorical)
        ]
        signals = tables.signals(users[2], rows)
        said: torch.Tensor = self.ranker(vectors, *users, at, *items, signals).float()
        return said.masked_fill(rows < 0, -torch.inf)
