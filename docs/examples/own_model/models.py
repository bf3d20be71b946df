"""Two torch modules, as somebody might have them who never heard of Endcap."""

import torch
from torch import Tensor, nn


class Tower(nn.Module):
    """A shopper becomes a vector of the items' space. The names of forward's arguments say what it is given."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.countries = nn.Embedding(4, 4)  # DE, FR, US, and 0 for every other
        self.net = nn.Sequential(nn.Linear(2 + 4 + 16, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, 16))

    def forward(self, dense: Tensor, categorical: Tensor, history_embeddings: Tensor, history_mask: Tensor) -> Tensor:
        seen = history_embeddings.sum(1) / history_mask.sum(1, keepdim=True).clamp(min=1)
        x = torch.cat([dense, self.countries(categorical[:, 0]), seen], -1)
        return nn.functional.normalize(self.net(x) + seen, dim=-1)


class Ranker(nn.Module):
    """Shopper and candidate become a score."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(16 + 2 + 16 + 1, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1)
        )

    def forward(self, user: Tensor, dense: Tensor, item_embedding: Tensor, item_dense: Tensor) -> Tensor:
        shopper = torch.cat([user, dense], -1).unsqueeze(1).expand(-1, item_embedding.shape[1], -1)
        x = torch.cat([shopper, item_embedding, item_dense], -1)
        return torch.sigmoid(self.net(x).squeeze(-1))
