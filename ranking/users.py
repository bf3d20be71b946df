"""The shoppers of a batch as both models see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ranking.batch import Scores

I64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class Users:
    """The encoded shoppers of a batch: dense f32[B, D], categorical i64[B, K], history i64[B, L], and their vectors
    f32[B, E] (zeros where nothing asked for them). `on_device` is the same as tensors, vectors first, where torch runs.
    """

    dense: Scores
    categorical: I64
    history: I64
    vectors: Scores
    on_device: Sequence[torch.Tensor] = ()

    def __getitem__(self, which: Sequence[int]) -> Users:
        at = list(which)
        on_device = [one[at] for one in self.on_device]
        return Users(self.dense[at], self.categorical[at], self.history[at], self.vectors[at], on_device)
