"""Weights of torch modules as plain arrays, in the shape that the compiled functions read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ranking.towers import Embeddings

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


class Codes(NamedTuple):
    """The tables of `Embeddings` under each other: table f32[rows, width]; table k starts at row first[k]."""

    table: F32
    first: I64


class Layers(NamedTuple):
    """Linear layers with ReLU between: sizes [n + 1], the weights [in, out] of each one after the other, the biases."""

    weights: F32
    biases: F32
    sizes: I64


def array(tensor: torch.Tensor) -> F32:
    found: F32 = np.ascontiguousarray(tensor.detach().cpu().numpy(), np.float32)
    return found


def codes(module: Embeddings) -> Codes:
    tables = [array(table.weight) for table in module.tables if isinstance(table, nn.Embedding)]
    first = np.cumsum([0, *(len(table) for table in tables)])[:-1].astype(np.int64)
    return Codes(np.concatenate(tables) if tables else np.zeros((0, 0), np.float32), first)


def linears(modules: Iterable[Any]) -> list[nn.Linear]:
    return [one for one in modules if isinstance(one, nn.Linear)]


def layers(modules: Iterable[Any]) -> Layers:
    found = linears(modules)
    return Layers(
        np.concatenate([array(one.weight.T).ravel() for one in found]),
        np.concatenate([array(one.bias) for one in found]),
        np.array([found[0].in_features, *(one.out_features for one in found)], np.int64),
    )
