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
STARTS = 0.75
"""The share of lists that stand at the start of a visit, where there are others. Within a visit the last item says most
of what comes next; at its start that item is yesterday's. A model cannot see which it is, so what it meets decides."""


def make_lists(
    labels: Labels, inputs: Inputs, retriever: Retriever, popularity: Popularity, config: TrainConfig
) -> Lists:
    """At most `ranker_examples` lists, of which `STARTS` begin a visit; those drop out of which nothing chosen was
    retrieved.

    What is chosen later in the same visit counts as chosen, at its weight. All of it stays in the list; the others are
    thinned to `ranker_candidates` at random. Raises TrainingError when no list is left.
    """
    random = np.random.default_rng(config.seed)
    labels = take(labels, np.lexsort((labels.time, labels.visit)))
    day = popularity.at(labels.time)
    chosen = draw(labels, day >= 0, config.ranker_examples, random)
    if not len(chosen):
        raise TrainingError("none of the newest examples comes after a snapshot of popularity: the ranker cannot learn")
    ends = np.searchsorted(labels.visit, labels.visit[chosen], "right")
    blocks = np.array_split(np.arange(len(chosen)), range(BLOCK, len(chosen), BLOCK))
    parts = [block(labels, chosen[some], ends[some], inputs, retriever, config, random) for some in blocks]
    rows, signal, gain = (np.concatenate([part[i] for part in parts]) for i in range(3))
    kept = (gain > 0).any(1)
    if not kept.any():
        raise TrainingError("nothing that was chosen in the newest examples was retrieved: the ranker cannot learn")
    return Lists(
        state=labels.state[chosen[kept]], day=torch.from_numpy(day[chosen[kept]]), rows=torch.from_numpy(rows[kept]),
        signal=torch.from_numpy(signal[kept]), gain=torch.from_numpy(gain[kept]),
    )  # fmt: skip


def draw(labels: Labels, usable: npt.NDArray[np.bool_], most: int, random: np.random.Generator) -> Ints:
    """Which labels, in order of (visit, time), begin a list. Labels of one visit and instant have one state."""
    visit = np.diff(labels.visit, prepend=-1) != 0
    instant = visit | (np.diff(labels.time, prepend=-1) != 0)
    starts, others = np.flatnonzero(visit & usable), np.flatnonzero(instant & ~visit & usable)
    if len(starts):
        others = random.permutation(others)[: round(len(starts) * (1 - STARTS) / STARTS)]
    chosen: Ints = np.sort(random.permutation(np.concatenate([starts, others]))[:most])
    return chosen


def take(labels: Labels, order: Ints) -> Labels:
    return Labels(*(getattr(labels, name)[order] for name in Labels.__slots__))


def block(
    labels: Labels, chosen: Ints, ends: Ints, inputs: Inputs, retriever: Retriever, config: TrainConfig,
    random: np.random.Generator,
) -> tuple[Ints, npt.NDArray[np.float32], npt.NDArray[np.float32]]:  # fmt: skip
    """Rows (-1 empty), signal and gain of each state's list, all [n, ranker_candidates]."""
    states = inputs.take(torch.from_numpy(labels.state[chosen]))
    width = config.ranker_candidates
    rows, signal = retriever.candidates(states[2].numpy(), retriever.users(states), width, width // 2)
    gain = np.zeros(rows.shape, np.float32)
    gains = np.zeros(len(retriever.embeddings), np.float32)
    for i, (first, end) in enumerate(zip(chosen, ends, strict=True)):
        targets = labels.item[first:end]
        gains[targets] = labels.weight[first:end]
        gain[i] = np.where(rows[i] >= 0, gains[rows[i]], 0.0)
        gains[targets] = 0.0
    # What was chosen comes first, then the others shuffled, then empty places.
    place = np.where(rows < 0, 2.0, random.random(rows.shape)) - 4.0 * (gain > 0)
    order = np.argsort(place, axis=1, kind="stable")[:, :width]
    short = ((0, 0), (0, width - order.shape[1]))
    return (
        np.pad(np.take_along_axis(rows, order, 1), short, constant_values=-1),
        np.pad(np.take_along_axis(signal, order, 1), short),
        np.pad(np.take_along_axis(gain, order, 1), short),
    )
