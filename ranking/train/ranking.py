"""Training of the ranker: what a shopper chose against what was retrieved for them and they did not choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ranking.covisit import Covisits
from ranking.ranker import Ranker
from ranking.towers import UserTower
from ranking.train.config import TrainConfig
from ranking.train.data import Inputs
from ranking.train.popularity import Popularity
from ranking.train.schedule import one_cycle

Step = Callable[[], None]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Retriever:
    """The user tower, the item vectors f32[N, E] and the co-visited neighbours that candidates come from."""

    def __init__(
        self, tower: UserTower, embeddings: torch.Tensor, neighbors: npt.NDArray[np.int32], neighbor_scores: Floats
    ) -> None:
        self.tower, self.embeddings, self.covisits = tower, embeddings, Covisits(neighbors, neighbor_scores)

    @torch.no_grad()
    def users(self, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        dense, categorical, history = inputs
        recent = self.embeddings[history.clamp(min=0)]
        vectors: torch.Tensor = self.tower.encode(dense, categorical, recent, history >= 0)
        return vectors

    @torch.no_grad()
    def personal(self, users: torch.Tensor, k: int) -> Ints:
        """int64[B, k]: the items nearest to each user by brute force, best first."""
        rows: Ints = (users @ self.embeddings.T).topk(min(k, len(self.embeddings)), dim=1).indices.numpy()
        return rows

    def covisited(self, history: Ints, k: int) -> tuple[Ints, Ints, Floats]:
        """The k best co-visited rows of one history, and every co-visited row with its sum."""
        rows, sums = self.covisits.accumulate(history)
        return rows[np.argsort(-sums, kind="stable")[:k]], rows, sums

    def candidates(self, history: Ints, users: torch.Tensor, personal: int, covisit: int) -> tuple[Ints, Floats]:
        """The union of both sources: rows int64[B, C] (-1 empty), and what co-visitation says of each f32[B, C]."""
        near = self.personal(users, personal)
        found = []
        taken = np.zeros(len(self.embeddings), bool)
        for i in range(len(history)):
            best, known, sums = self.covisited(history[i], covisit)
            taken[near[i]] = True
            rows = np.concatenate([near[i], best[~taken[best]]])
            taken[near[i]] = False
            found.append((rows, self.covisits.lookup(rows, known, sums)))
        width = max(len(rows) for rows, _ in found)
        out, signal = np.full((len(found), width), -1, np.int64), np.zeros((len(found), width), np.float32)
        for i, (rows, said) in enumerate(found):
            out[i, : len(rows)], signal[i, : len(rows)] = rows, said
        return out, signal


@dataclass(frozen=True, slots=True)
class Lists:
    """S lists of C candidates: rows i64[S, C] (-1 empty), signal f32[S, C], gain f32[S, C] (0: not chosen)."""

    state: Ints
    day: torch.Tensor
    rows: torch.Tensor
    signal: torch.Tensor
    gain: torch.Tensor

    def __len__(self) -> int:
        return len(self.state)


def listwise_softmax(scores: torch.Tensor, gain: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean over lists of -sum_j p_j log softmax(scores)_j, p the gains made to sum to one.

    ListNet with gains for probabilities (Zhe Cao et al., "Learning to rank: from pairwise approach to listwise
    approach", ICML 2007). scores, gain f32[S, C]; what is not `present` (bool[S, C]) is left out.
    """
    log_p = torch.log_softmax(scores.masked_fill(~present, -torch.inf), 1).masked_fill(~present, 0.0)
    target = gain / gain.sum(1, keepdim=True).clamp(min=1e-9)
    return -(target * log_p).sum(1).mean()


def fit_ranker(
    ranker: Ranker, inputs: Inputs, lists: Lists, users: torch.Tensor, embeddings: torch.Tensor,
    popularity: Popularity, item_categorical: torch.Tensor, config: TrainConfig, step: Step,
) -> None:  # fmt: skip
    """Adam with a one-cycle rate over shuffled lists. `users` f32[S, E] are the lists' user vectors."""
    random = torch.Generator().manual_seed(config.seed + 1)
    optimizer = torch.optim.AdamW(ranker.parameters(), lr=config.ranker_learning_rate, weight_decay=0.01, fused=True)
    size = config.ranker_batch_size
    schedule = one_cycle(optimizer, config.ranker_steps, rising=0.2)
    for which in batches(len(lists), size, config.ranker_steps, random):
        rows = lists.rows[which]
        at = rows.clamp(min=0)
        item_dense = popularity.dense[lists.day[which][:, None], at]
        state = torch.from_numpy(lists.state[which.numpy()])
        scores = ranker(
            users[which], *inputs.take(state), at, embeddings[at], item_dense, item_categorical[at],
            lists.signal[which][:, :, None],
        )  # fmt: skip
        loss = listwise_softmax(scores, lists.gain[which], rows >= 0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        step()


def batches(count: int, size: int, steps: int, random: torch.Generator) -> Iterator[torch.Tensor]:
    """`steps` batches of places below `count`, in one random order after another."""
    done = 0
    while True:
        for which in torch.split(torch.randperm(count, generator=random), size):
            if done == steps:
                return
            done += 1
            yield which
