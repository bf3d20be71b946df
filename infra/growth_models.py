"""The two models of the reference work W1 for any number of features: `dense` is how many numbers a shopper has."""

import torch
from torch import Tensor, nn

WIDTH, ITEM_DENSE = 64, 8


def shopper(dense: Tensor, history_embeddings: Tensor, history_mask: Tensor) -> Tensor:
    """f32[B, dense + 64]: standardized numbers and the mean of the recent items' embeddings."""
    seen = history_mask.sum(1, keepdim=True).clamp(min=1)
    return torch.cat([dense, history_embeddings.sum(1) / seen], -1)


class UserTower(nn.Module):
    def __init__(self, dense: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dense + WIDTH, 128), nn.ReLU(), nn.Linear(128, WIDTH))

    def forward(self, dense: Tensor, history_embeddings: Tensor, history_mask: Tensor) -> Tensor:
        return nn.functional.normalize(self.net(shopper(dense, history_embeddings, history_mask)), dim=-1)


class Ranker(nn.Module):
    def __init__(self, dense: int) -> None:
        super().__init__()
        width = dense + WIDTH + ITEM_DENSE + WIDTH
        self.net = nn.Sequential(nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(
        self,
        dense: Tensor,
        history_embeddings: Tensor,
        history_mask: Tensor,
        item_dense: Tensor,
        item_embedding: Tensor,
    ) -> Tensor:
        user = shopper(dense, history_embeddings, history_mask)
        users = user[:, None, :].expand(item_embedding.shape[0], item_embedding.shape[1], -1)
        found: Tensor = self.net(torch.cat([users, item_dense, item_embedding], -1)).squeeze(-1)
        return found
