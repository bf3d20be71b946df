"""The two models of the reference work W1 over Endcap's inputs: the layers are its own, only `forward` is new."""

import torch
from torch import Tensor, nn


def shopper(dense: Tensor, history_embeddings: Tensor, history_mask: Tensor) -> Tensor:
    """W1's user vector f32[B, 80]: 16 standardized numbers and the mean of the recent items' embeddings."""
    seen = history_mask.sum(1, keepdim=True).clamp(min=1)
    return torch.cat([dense, history_embeddings.sum(1) / seen], -1)


class UserTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(80, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, dense: Tensor, history_embeddings: Tensor, history_mask: Tensor) -> Tensor:
        return nn.functional.normalize(self.net(shopper(dense, history_embeddings, history_mask)), dim=-1)


class Ranker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(152, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(
        self,
        dense: Tensor,
        history_embeddings: Tensor,
        history_mask: Tensor,
        item_dense: Tensor,
        item_embedding: Tensor,
    ) -> Tensor:
        user = shopper(dense, history_embeddings, history_mask)
        items = torch.cat([item_dense, item_embedding], -1)
        users = user[:, None, :].expand(items.shape[0], items.shape[1], -1)
        found: Tensor = self.net(torch.cat([users, items], -1)).squeeze(-1)
        return found
