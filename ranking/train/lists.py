"""The lists that the ranker learns to order: retrieved candidates, and which of them the shopper then chose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ranking.errors import TrainingError
from ranking.train.config import TrainConfig
from ranking.train.data import Inputs
from ranking.train.popularity import Popularity
from ranking.train.ranking import Lists, Retriever
from ranking.train.visits import Labels

Ints = npt.NDArray[np.int64]
BLOCK = 256


def make_lists(
    labels: Labels, inputs: Inputs, retriever: Retriever, popularity: Popularity, config: TrainConfig
) -> Lists:
    """At most `ranker_examples` lists, of states drawn evenly; those of which nothing chosen was retrieved drop out.

    What is chosen later in the same visit counts as chosen, at its weight. All of it stays in the list; the others are
    thinned to `ranker_candidates` at random. Raises TrainingError when no list is left.
    """
    random = np.random.default_rng(config.seed)
    order = np.lexsort((labels.time, labels.visit))
    labels = labels.where(np.ones(len(labels), bool)) if not len(order) else take(labels, order)
    day = popularity.at(labels.time)
    # Labels of one visit and instant have one state.
    new = (np.diff(labels.visit, prepend=-1) != 0) | (np.diff(labels.time, prepend=-1) != 0)
    chosen = np.flatnonzero(new & (day >= 0))
    if len(chosen) > config.ranker_examples:
        chosen = np.sort(random.choice(chosen, config.ranker_examples, replace=False))
    ends = np.searchsorted(labels.visit, labels.visit[chosen], "right")
    parts = []
    for start in range(0, len(chosen), BLOCK):
        some = slice(start, start + BLOCK)
        parts += block(labels, chosen[some], ends[some], inputs, retriever, config, random)
    kept = np.array([part is not None for part in parts], bool)
    if not kept.any():
        raise TrainingError("nothing that was chosen in the newest examples was retrieved: the ranker cannot learn")
    rows, signal, gain = (np.stack([part[i] for part in parts if part is not None]) for i in range(3))
    return Lists(
        state=labels.state[chosen[kept]], day=torch.from_numpy(day[chosen[kept]]), rows=torch.from_numpy(rows),
        signal=torch.from_numpy(signal), gain=torch.from_numpy(gain),
    )  # fmt: skip


def take(labels: Labels, order: Ints) -> Labels:
    return Labels(*(getattr(labels, name)[order] for name in Labels.__slots__))


Part = tuple[Ints, npt.NDArray[np.float32], npt.NDArray[np.float32]]


def block(
    labels: Labels, chosen: Ints, ends: Ints, inputs: Inputs, retriever: Retriever, config: TrainConfig,
    random: np.random.Generator,
) -> list[Part | None]:  # fmt: skip
    """Rows, signal and gain of each state's list; None where nothing chosen was retrieved."""
    states = inputs.take(torch.from_numpy(labels.state[chosen]))
    width = config.ranker_candidates
    rows, signal = retriever.candidates(states[2].numpy(), retriever.users(states), width, width // 2)
    gains = np.zeros(len(retriever.embeddings), np.float32)
    parts: list[Part | None] = []
    for i, (first, end) in enumerate(zip(chosen, ends, strict=True)):
        targets = labels.item[first:end]
        gains[targets] = labels.weight[first:end]
        gain = np.where(rows[i] >= 0, gains[rows[i]], 0.0).astype(np.float32)
        gains[targets] = 0.0
        if not gain.any():
            parts.append(None)
            continue
        # Those chosen first, then the others shuffled, the empty places last.
        order = np.argsort(np.where(rows[i] < 0, 2.0, random.random(len(gain))) - 4.0 * (gain > 0), kind="stable")[
            :width
        ]
        part = rows[i][order], signal[i][order], gain[order]
        short = width - len(order)
        parts.append((np.pad(part[0], (0, short), constant_values=-1), np.pad(part[1], (0, short)),
                      np.pad(part[2], (0, short))))  # fmt: skip
    return parts
