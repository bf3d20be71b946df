"""The two towers of retrieval: a user and an item become unit vectors, and their inner product says how well they fit.

Paul Covington, Jay Adams, Emre Sargin, "Deep neural networks for YouTube recommendations", RecSys 2016: a user is the
items of their history, pooled, with what else is known. The item tower runs in training only; what it says of every
item is the bundle's table of embeddings, and the user tower gathers a history from that same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

LIMIT = 10.0
"""Standardized inputs are cut off here, so that one absurd value cannot drown the rest or overflow."""

DECAYS = (1.0, 0.8, 0.4)
"""How fast each pooling head forgets when training starts: a step back in the history weighs this much."""


class Embeddings(nn.Module):
    """One small table for each categorical input, joined: int64[..., K] -> float32[..., K * width]."""

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(table(size, width, 0.1) for size in sizes)
        self.width = len(sizes) * width

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        if not self.tables:
            return torch.zeros((*codes.shape[:-1], 0), device=codes.device)
        return torch.cat([one(codes[..., k]) for k, one in enumerate(self.tables)], -1)


def table(size: int, width: int, spread: float) -> nn.Embedding:
    """An embedding table drawn from a normal distribution with standard deviation `spread`."""
    made = nn.Embedding(size, width)
    nn.init.normal_(made.weight, std=spread)
    return made


def layers(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of the given widths with ReLU between."""
    parts: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        parts += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


class UserTower(nn.Module):
    """dense f32[B, dense], categorical i64[B, K], history i64[B, history] -> f32[B, E], unit length.

    `categorical` are the K vocabulary sizes, the code for everything else included. `item_embeddings` f32[N, E] is
    shared with the item table and is no part of the weights.
    """

    item_embeddings: torch.Tensor

    def __init__(self, *, dense: int, categorical: Sequence[int], history: int, hidden: Sequence[int] = (128,),
                 category_width: int = 8, item_embeddings: torch.Tensor) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("item_embeddings", item_embeddings, persistent=False)
        dimension = item_embeddings.shape[1]
        self.codes = Embeddings(categorical, category_width)
        steps_back = torch.arange(history - 1, -1, -1, dtype=torch.float32)
        self.recency = nn.Parameter(torch.tensor(DECAYS).log()[:, None] * steps_back)  # [heads, L], newest last
        self.blend = nn.Parameter(torch.full((len(DECAYS), dimension), 1.0 / len(DECAYS)))
        width = len(DECAYS) * dimension + dense + self.codes.width + 1
        self.mlp = layers([width, *hidden, dimension])

    def forward(self, dense: torch.Tensor, categorical: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        return self.encode(dense, categorical, self.item_embeddings[history.clamp(min=0)], history >= 0)

    def encode(self, dense: torch.Tensor, categorical: torch.Tensor, recent: torch.Tensor,
               present: torch.Tensor) -> torch.Tensor:  # fmt: skip
        """The same from the history's embeddings f32[B, L, E] and which of them are there, bool[B, L].

        Training calls this, because there the item embeddings are still being learned.
        """
        weights = self.recency.exp() * present[:, None].float()  # [B, heads, L]
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-6)
        pooled = weights @ recent  # [B, heads, E]
        seen = present.float().mean(1, keepdim=True)
        inputs = [pooled.flatten(1), dense.clamp(-LIMIT, LIMIT), self.codes(categorical), seen]
        return F.normalize(self.mlp(torch.cat(inputs, 1)) + (pooled * self.blend).sum(1), dim=1)


class ItemTower(nn.Module):
    """rows i64[n], dense f32[n, F], categorical i64[n, G], words i64[n, W] -> f32[n, E], unit length.

    An item is its own vector plus what its content says: numbers, categories, and the words of its title (codes, 0 is
    none). In training `forget` (bool[n]) drops the own vector of some, so that content alone serves an item that nobody
    has touched: Maksims Volkovs, Guangwei Yu, Tomi Poutanen, "DropoutNet: addressing cold start in recommender
    systems", NeurIPS 2017.
    """

    def __init__(self, *, items: int, dense: int, categorical: Sequence[int], words: int, dimension: int,
                 hidden: Sequence[int] = (128,), category_width: int = 16) -> None:  # fmt: skip
        super().__init__()
        self.own = table(items, dimension, 0.05)
        self.codes = Embeddings(categorical, category_width)
        self.words = nn.EmbeddingBag(words, dimension, mode="mean", padding_idx=0)
        nn.init.normal_(self.words.weight, std=0.1)
        self.content = layers([dense + self.codes.width + dimension, *hidden, dimension])

    def forward(self, rows: torch.Tensor, dense: torch.Tensor, categorical: torch.Tensor, words: torch.Tensor,
                forget: torch.Tensor | None = None) -> torch.Tensor:  # fmt: skip
        own = self.own(rows)
        if forget is not None:
            own = own.masked_fill(forget[:, None], 0.0)
        said = self.words(words)
        content = self.content(torch.cat([dense.clamp(-LIMIT, LIMIT), self.codes(categorical), said], 1))
        return F.normalize(own + content + said, dim=1)
