"""The ranker: a small network that scores each candidate from the user, the item, and how the two relate.

Relations are handed to it rather than left to be found: a network of this size does not learn to multiply (Rendle et
al., "Neural collaborative filtering vs. matrix factorization revisited", RecSys 2020). A score depends on its own
candidate alone, never on the others in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ranking.towers import LIMIT, Embeddings, layers

COVISIT_FLOOR = 1e-3
RELATIONS = 8  # columns of `relate`, signals and the price and category columns apart


class Ranker(nn.Module):
    """Scores f32[B, C]; the contract is that of `ranking.models`.

    `categorical` and `item_categorical` are vocabulary sizes. `price` and `category`, where both sides have one, say
    how to compare them: price = [place in item_dense, mean, scale, place in dense, mean, scale], both of a log1p
    price; category = [place in item_categorical, place in categorical], both of one vocabulary.
    """

    item_embeddings: torch.Tensor

    def __init__(self, *, dense: int, categorical: Sequence[int], item_dense: int, item_categorical: Sequence[int],
                 signals: int, hidden: Sequence[int] = (64, 32), category_width: int = 8,
                 price: Sequence[float] = (), category: Sequence[int] = (),
                 item_embeddings: torch.Tensor) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("item_embeddings", item_embeddings, persistent=False)
        self.price, self.category = list(price), list(category)
        self.user_codes = Embeddings(categorical, category_width)
        self.item_codes = Embeddings(item_categorical, category_width)
        related = RELATIONS + 2 * signals + 2 * bool(price) + bool(category)
        self.user_side = nn.Linear(dense + self.user_codes.width + 1, hidden[0])
        self.item_side = nn.Linear(item_dense + self.item_codes.width + related, hidden[0], bias=False)
        self.rest = nn.Sequential(nn.ReLU(), layers([*hidden, 1]))
        self.shortcut = nn.Linear(related, 1, bias=False)

    def forward(self, user: torch.Tensor, dense: torch.Tensor, categorical: torch.Tensor, history: torch.Tensor,
                rows: torch.Tensor, embedding: torch.Tensor, item_dense: torch.Tensor,
                item_categorical: torch.Tensor, signals: torch.Tensor) -> torch.Tensor:  # fmt: skip
        dense, item_dense = dense.clamp(-LIMIT, LIMIT), item_dense.clamp(-LIMIT, LIMIT)
        related = self.relate(user, dense, categorical, history, rows, embedding, item_dense, item_categorical, signals)
        seen = (history >= 0).float().mean(1, keepdim=True)
        # The user's part of the first layer is the same for every candidate: computed once, then added.
        users = self.user_side(torch.cat([dense, self.user_codes(categorical), seen], 1))
        items = self.item_side(torch.cat([item_dense, self.item_codes(item_categorical), related], 2))
        score: torch.Tensor = (self.rest(users[:, None] + items) + self.shortcut(related)).squeeze(2)
        return score

    def relate(self, user: torch.Tensor, dense: torch.Tensor, categorical: torch.Tensor, history: torch.Tensor,
               rows: torch.Tensor, embedding: torch.Tensor, item_dense: torch.Tensor,
               item_categorical: torch.Tensor, signals: torch.Tensor) -> torch.Tensor:  # fmt: skip
        """f32[B, C, related]: how each candidate relates to the user, their history and their price level."""
        present = history >= 0
        recent = self.item_embeddings[history.clamp(min=0)] * present[:, :, None].float()  # [B, L, E]
        likeness = embedding @ recent.transpose(1, 2)  # [B, C, L], 0 where the history is empty
        count = present.float().sum(1).clamp(min=1)[:, None]
        # A candidate is not like itself for this purpose: that it was touched before is said apart.
        same = (rows[:, :, None] == history[:, None, :]) & present[:, None, :]
        other = likeness.masked_fill(same, 0.0)
        length = history.shape[1]
        newness = torch.linspace(1.0 / length, 1.0, length, device=history.device)
        touched = same.float()
        columns = [
            (embedding @ user[:, :, None]).squeeze(2),
            other.amax(2),
            other.sum(2) / count,
            other[:, :, -5:].sum(2) / count.clamp(max=5),
            other[:, :, -1],
            touched.amax(2),
            touched.sum(2).log1p(),
            (touched * newness).amax(2),
        ]
        parts = [torch.stack(columns, 2), signals.clamp(min=0).sqrt().clamp(max=LIMIT),
                 (signals.clamp(min=0) + COVISIT_FLOOR).log() * 0.3]  # fmt: skip
        if self.price:
            parts.append(self.price_gap(dense, item_dense))
        if self.category:
            theirs = categorical[:, None, int(self.category[1])]
            both = (item_categorical[:, :, int(self.category[0])] == theirs) & (theirs > 0)
            parts.append(both[:, :, None].float())
        return torch.cat(parts, 2)

    def price_gap(self, dense: torch.Tensor, item_dense: torch.Tensor) -> torch.Tensor:
        """f32[B, C, 2]: log price above the user's average, and its size."""
        place, mean, scale, user_place, user_mean, user_scale = self.price
        item = item_dense[:, :, int(place)] / scale + mean
        user = dense[:, int(user_place)] / user_scale + user_mean
        gap = (item - user[:, None]).clamp(-LIMIT, LIMIT)
        return torch.stack([gap, gap.abs()], 2)
