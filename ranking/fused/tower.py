"""`ranking.towers.UserTower`, compiled: the same sums in one pass over a history."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ranking.fused.weights import F32, I64, Codes, Layers, array, codes, layers
from ranking.native import native
from ranking.towers import UserTower

LIMIT = np.float32(10)
ZERO, ONE = np.float32(0), np.float32(1)
LEAST_WEIGHT, LEAST_NORM = np.float32(1e-6), np.float32(1e-12)


class TowerWeights(NamedTuple):
    codes: Codes
    recency: F32  # [heads, L], the exponential taken
    blend: F32  # [heads, E]
    mlp: Layers


def tower_weights(tower: UserTower) -> TowerWeights:
    return TowerWeights(codes(tower.codes), array(tower.recency.exp()), array(tower.blend), layers(tower.mlp))


@native
def clip(x: np.float32) -> np.float32:
    return min(max(x, -LIMIT), LIMIT)


@native
def through(mlp: Layers, x: F32, y: F32) -> F32:
    """The last layer's output for the input in x; both buffers are as wide as the widest layer, and are overwritten."""
    weight = bias = 0
    for k in range(len(mlp.sizes) - 1):
        wide, narrow = mlp.sizes[k], mlp.sizes[k + 1]
        for j in range(narrow):
            y[j] = mlp.biases[bias + j]
        for i in range(wide):
            value = x[i] if k == 0 else max(x[i], ZERO)
            for j in range(narrow):
                y[j] += value * mlp.weights[weight + i * narrow + j]
        weight += wide * narrow
        bias += narrow
        x, y = y, x
    return x


@native
def pool(weights: TowerWeights, embeddings: F32, history: I64, pooled: F32) -> np.float32:
    """Fills pooled[heads, E] with a history's weighted means; returns the share of the history that is there."""
    heads, length = weights.recency.shape
    for h in range(heads):
        for e in range(embeddings.shape[1]):
            pooled[h, e] = ZERO
        total = ZERO
        for k in range(length):
            if history[k] >= 0:
                total += weights.recency[h, k]
        total = max(total, LEAST_WEIGHT)
        for k in range(length):
            row = history[k]
            if row >= 0:
                weight = weights.recency[h, k] / total
                for e in range(embeddings.shape[1]):
                    pooled[h, e] += weight * embeddings[row, e]
    seen = ZERO
    for k in range(length):
        if history[k] >= 0:
            seen += ONE
    return seen / np.float32(length)


@native
def user_vectors(weights: TowerWeights, embeddings: F32, dense: F32, categorical: I64, history: I64, out: F32) -> None:
    """Fills out f32[B, E] from dense f32[B, D], categorical i64[B, K], history i64[B, L], embeddings f32[N, E]."""
    heads, size = weights.blend.shape
    width = weights.codes.table.shape[1]
    widest = 0
    for k in range(len(weights.mlp.sizes)):
        widest = max(widest, weights.mlp.sizes[k])
    x, y = np.empty(widest, np.float32), np.empty(widest, np.float32)
    pooled = np.empty((heads, size), np.float32)
    for b in range(len(dense)):
        seen = pool(weights, embeddings, history[b], pooled)
        n = 0
        for h in range(heads):
            for e in range(size):
                x[n] = pooled[h, e]
                n += 1
        for d in range(dense.shape[1]):
            x[n] = clip(dense[b, d])
            n += 1
        for k in range(categorical.shape[1]):
            code = weights.codes.first[k] + categorical[b, k]
            for i in range(width):
                x[n] = weights.codes.table[code, i]
                n += 1
        x[n] = seen
        z = through(weights.mlp, x, y)
        square = ZERO
        for e in range(size):
            value = z[e]
            for h in range(heads):
                value += pooled[h, e] * weights.blend[h, e]
            out[b, e] = value
            square += value * value
        norm = max(np.sqrt(square), LEAST_NORM)
        for e in range(size):
            out[b, e] /= norm
