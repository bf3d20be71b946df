"""Models as a user might bring them: the packing tests import this file by its path."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DENSE, CODES, EMBEDDING, ITEM_DENSE = 3, 4, 8, 2


class Tower(nn.Module):
    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.countries = nn.Embedding(CODES, 4)
        self.net = nn.Sequential(nn.Linear(DENSE + 4 + EMBEDDING, hidden), nn.ReLU(), nn.Linear(hidden, EMBEDDING))

    def forward(self, dense: Tensor, categorical: Tensor, history_embeddings: Tensor, history_mask: Tensor) -> Tensor:
        mean = history_embeddings.sum(1) / history_mask.sum(1, keepdim=True).clamp(min=1)
        x = torch.cat([dense, self.countries(categorical[:, 0]), mean], -1)
        return nn.functional.normalize(self.net(x), dim=-1)


class Ranker(nn.Module):
    """Concatenates shopper and candidate before its first layer, as most do."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(CODES, 4)
        self.net = nn.Sequential(
            nn.Linear(EMBEDDING + DENSE + EMBEDDING + ITEM_DENSE + 4, hidden), nn.ReLU(),
            nn.Linear(hidden, 16), nn.ReLU(), nn.Linear(16, 1),
        )  # fmt: skip

    def forward(
        self, user: Tensor, dense: Tensor, item_embedding: Tensor, item_dense: Tensor, item_categorical: Tensor
    ) -> Tensor:
        b, c, _ = item_embedding.shape
        shopper = torch.cat([user, dense], -1).unsqueeze(1).expand(b, c, -1)
        item = torch.cat([item_embedding, item_dense, self.words(item_categorical[:, :, 0])], -1)
        return torch.sigmoid(self.net(torch.cat([shopper, item], -1)).squeeze(-1))


class Products(nn.Module):
    """A ranker that cannot be taken apart: shopper and candidate meet in a product."""

    def forward(self, user: Tensor, item_embedding: Tensor) -> Tensor:
        return (user.unsqueeze(1) * item_embedding).sum(-1)


class Wrong(nn.Module):
    def forward(self, user: Tensor, shoe_size: Tensor) -> Tensor:
        return user.sum(-1, keepdim=True) + shoe_size


class Two(nn.Module):
    def forward(self, user: Tensor, item_embedding: Tensor) -> tuple[Tensor, Tensor]:
        score = (user.unsqueeze(1) * item_embedding).sum(-1)
        return score, score


class Wide(nn.Module):
    """Answers with another shape than it should."""

    def forward(self, user: Tensor, item_embedding: Tensor) -> Tensor:
        return user.unsqueeze(1) * item_embedding


class Broken(nn.Module):
    """NaN for shoppers over 60, as a logarithm of a negative number gives."""

    def forward(self, dense: Tensor, item_embedding: Tensor) -> Tensor:
        return torch.log(1.0 - dense[:, :1]) + item_embedding.sum(-1)


class BrokenTower(nn.Module):
    def forward(self, dense: Tensor, history_embeddings: Tensor) -> Tensor:
        return torch.log(1.0 - dense[:, :1]) + torch.ones_like(history_embeddings[:, 0])


class Larger(nn.Module):
    """Takes the larger of two sizes, which is no operation on tensors."""

    def forward(self, user: Tensor, item_embedding: Tensor) -> Tensor:
        return (item_embedding * user.unsqueeze(1)).sum(-1) / torch.sym_max(item_embedding.shape[1], 9)
