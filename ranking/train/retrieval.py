"""Training of the two towers: each label's item against the other items of its batch.

In-batch negatives come as often as they are labels, so popular items are punished for being popular. The correction
takes log q of each item, its share of the labels, off its score (in training only), and what is learned is how likely
the item is for this user, popularity included: Xinyang Yi et al., "Sampling-bias-corrected neural modeling for large
corpus item recommendations", RecSys 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from ranking.towers import ItemTower, UserTower
from ranking.train.config import TrainConfig
from ranking.train.content import Content
from ranking.train.data import Inputs
from ranking.train.schedule import one_cycle
from ranking.train.visits import Labels

Step = Callable[[], None]
OWN_STATE = 0.3
"""How often a label is predicted from the state just before it, rather than from the start of its visit."""


def sampled_softmax(
    users: torch.Tensor, items: torch.Tensor, rows: torch.Tensor, log_q: torch.Tensor, weight: torch.Tensor,
    temperature: float, also: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """The weighted mean loss of labels i: -log softmax_j(<user_i, item_j> / temperature - log q_j) at j = i.

    users, items f32[B, E] unit; rows i64[B] says which item each is; log_q f32[B]; weight f32[B]. Where item j is item
    i again (an accidental hit) it is no negative; `also` bool[B, B] marks further places that are none.
    """
    scores = users @ items.T / temperature - log_q
    same = rows[:, None] == rows[None, :]
    if also is not None:
        same |= also
    same.fill_diagonal_(False)
    losses = F.cross_entropy(scores.masked_fill(same, -torch.inf), torch.arange(len(rows)), reduction="none")
    return (losses * weight).sum() / weight.sum()


class TowerTrainer:
    """Both towers, the optimizer, and what they learn from."""

    def __init__(
        self, inputs: Inputs, content: Content, items: int, config: TrainConfig, sizes: dict[str, Any]
    ) -> None:
        self.inputs, self.content, self.items, self.config = inputs, content, items, config
        blank = torch.zeros((1, config.dimension))
        self.user_tower = UserTower(**sizes, item_embeddings=blank)
        self.item_tower = ItemTower(
            items=items,
            dense=content.dense.shape[1],
            categorical=[int(codes.max()) + 1 for codes in content.categorical.T],
            words=content.vocabulary,
            dimension=config.dimension,
            hidden=[config.hidden],
        )
        self.random = torch.Generator().manual_seed(config.seed)

    def fit(self, labels: Labels, epochs: int, learning_rate: float, step: Step) -> None:
        """Adam with a one-cycle rate over shuffled batches of labels."""
        parameters = [*self.user_tower.parameters(), *self.item_tower.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
        size = self.config.batch_size
        batches = max(1, len(labels) // size)
        schedule = one_cycle(optimizer, epochs * batches, rising=0.1)
        log_q = torch.from_numpy(log_shares(labels.item, self.items))
        for _ in range(epochs):
            order = torch.randperm(len(labels), generator=self.random).numpy()
            for batch in range(batches):
                loss = self.loss(labels, order[batch * size : (batch + 1) * size], log_q)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                step()

    def loss(self, labels: Labels, which: npt.NDArray[np.int64], log_q: torch.Tensor) -> torch.Tensor:
        own = torch.rand(len(which), generator=self.random).numpy() < OWN_STATE
        state = torch.from_numpy(np.where(own, labels.state[which], labels.start[which]))
        dense, categorical, history = self.inputs.take(state)
        rows = torch.from_numpy(labels.item[which])
        vectors, history_at, rows_at = self.item_vectors(history, rows)
        users = self.user_tower.encode(dense, categorical, F.embedding(history_at, vectors), history >= 0)
        visit = torch.from_numpy(labels.visit[which])
        return sampled_softmax(
            users, F.embedding(rows_at, vectors), rows, log_q[rows], torch.from_numpy(labels.weight[which]),
            self.config.temperature, visit[:, None] == visit[None, :],
        )  # fmt: skip

    def item_vectors(self, *wanted: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The vectors of the distinct rows wanted, and for each `wanted` (i64, -1 empty) the places in them."""
        rows = torch.unique(torch.cat([one.flatten() for one in wanted]).clamp(min=0))
        place = torch.zeros(self.items, dtype=torch.int64)
        place[rows] = torch.arange(len(rows))
        forget = torch.rand(len(rows), generator=self.random) < self.config.forget
        vectors = self.item_tower(rows, *self.content.take(rows), forget)
        return (vectors, *(place[one.clamp(min=0)] for one in wanted))

    @torch.no_grad()
    def embeddings(self, touched: npt.NDArray[np.bool_]) -> torch.Tensor:
        """f32[N, E] of every item. Those that training never touched go by their content alone."""
        self.item_tower.eval()
        fresh = torch.from_numpy(~touched)
        blocks = torch.split(torch.arange(self.items), 8192)
        parts = [self.item_tower(rows, *self.content.take(rows), fresh[rows]) for rows in blocks]
        self.item_tower.train()
        return torch.cat(parts)


def log_shares(item: npt.NDArray[np.int64], items: int) -> npt.NDArray[np.float32]:
    """float32[N]: log of each item's share of the labels; of one that is no label, as if it were one once."""
    counts = np.maximum(np.bincount(item, minlength=items), 1)
    return np.log(counts / len(item)).astype(np.float32)
