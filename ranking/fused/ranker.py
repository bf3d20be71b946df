"""`ranking.ranker.Ranker`, compiled: candidates in tiles, a tile's numbers beside each other so that one instruction
takes eight or sixteen candidates. Read it beside the module, whose columns it computes in the same order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ranking.fused.weights import F32, I64, Codes, array, codes, linears
from ranking.native import native
from ranking.ranker import Ranker

TILE = 64
LIMIT = np.float32(10)
FLOOR = np.float32(1e-3)
ZERO, ONE, FIVE, LOG_SCALE = np.float32(0), np.float32(1), np.float32(5), np.float32(0.3)
LAST = 5  # how many of the newest items have a column of their own mean


class RankerWeights(NamedTuple):
    """The first layer's user side is [in, H], the others [out, in]. price f32[6] and category i64[2] may be empty."""

    user_codes: Codes
    item_codes: Codes
    user_side: F32
    user_bias: F32
    item_side: F32
    deep: F32
    deep_bias: F32
    last: F32
    last_bias: F32
    shortcut: F32
    price: F32
    category: I64


def ranker_weights(ranker: Ranker) -> RankerWeights | None:
    """None where the ranker has another depth than two hidden layers."""
    rest = linears(ranker.rest.modules())
    if len(rest) != 2:
        return None
    deep, last = rest
    return RankerWeights(
        user_codes=codes(ranker.user_codes),
        item_codes=codes(ranker.item_codes),
        user_side=array(ranker.user_side.weight.T),
        user_bias=array(ranker.user_side.bias),
        item_side=array(ranker.item_side.weight),
        deep=array(deep.weight),
        deep_bias=array(deep.bias),
        last=array(last.weight[0]),
        last_bias=array(last.bias),
        shortcut=array(ranker.shortcut.weight[0]),
        price=np.array(ranker.price, np.float32),
        category=np.array(ranker.category, np.int64),
    )


@native
def clip(x: np.float32) -> np.float32:
    return min(max(x, -LIMIT), LIMIT)


@native
def fill(out: F32, value: np.float32) -> None:
    for i in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[i, c] = value


@native
def add_product(weights: F32, x: F32, out: F32) -> None:
    """out[J, TILE] += weights[J, I] @ x[I, TILE]. Four rows of x a step: each of out is then read and written less."""
    outs, ins = weights.shape
    whole = ins - ins % 4
    for j in range(outs):
        for i in range(0, whole, 4):
            w0, w1, w2, w3 = weights[j, i], weights[j, i + 1], weights[j, i + 2], weights[j, i + 3]
            for c in range(TILE):
                out[j, c] += w0 * x[i, c] + w1 * x[i + 1, c] + w2 * x[i + 2, c] + w3 * x[i + 3, c]
        for i in range(whole, ins):
            w0 = weights[j, i]
            for c in range(TILE):
                out[j, c] += w0 * x[i, c]


@native
def user_part(weights: RankerWeights, dense: F32, categorical: I64, seen: np.float32, out: F32) -> None:
    """out[H]: the first layer's share of what is known of one shopper, the same for all candidates."""
    for j in range(len(out)):
        out[j] = weights.user_bias[j]
    place = 0
    for d in range(len(dense)):
        value = clip(dense[d])
        for j in range(len(out)):
            out[j] += value * weights.user_side[place, j]
        place += 1
    for k in range(len(categorical)):
        code = weights.user_codes.first[k] + categorical[k]
        for i in range(weights.user_codes.table.shape[1]):
            value = weights.user_codes.table[code, i]
            for j in range(len(out)):
                out[j] += value * weights.user_side[place, j]
            place += 1
    for j in range(len(out)):
        out[j] += seen * weights.user_side[place, j]


@native
def relate(like: F32, at: I64, history: I64, count: np.float32, related: F32) -> None:
    """The first eight columns of `Ranker.relate`. like[L + 1, TILE] holds inner products with the history, then with
    the user; those of a candidate with itself are set to 0.
    """
    length = len(history)
    fill(related[:8], ZERO)
    for c in range(TILE):
        related[0, c] = like[length, c]
        related[1, c] = -np.inf
    for k in range(length):
        if history[k] >= 0:
            newness = np.float32(k + 1) / np.float32(length)
            for c in range(TILE):
                if at[c] == history[k]:
                    like[k, c] = ZERO
                    related[6, c] += ONE
                    related[7, c] = newness
        for c in range(TILE):
            related[1, c] = max(related[1, c], like[k, c])
            related[2, c] += like[k, c]
        if k >= length - LAST:
            for c in range(TILE):
                related[3, c] += like[k, c]
    for c in range(TILE):
        related[2, c] /= count
        related[3, c] /= min(count, FIVE)
        related[4, c] = like[length - 1, c]
        related[5, c] = min(related[6, c], ONE)
        if related[6, c] > ZERO:
            related[6, c] = np.log1p(related[6, c])


@native
def score(
    weights: RankerWeights, embeddings: F32, item_dense: F32, item_categorical: I64,
    users: F32, dense: F32, categorical: I64, history: I64, rows: I64, signals: F32, out: F32,
) -> None:  # fmt: skip
    """Fills out f32[B, C], minus infinity where rows i64[B, C] is -1.

    Of the items: embeddings f32[N, E], item_dense f32[N, F], item_categorical i64[N, G]. Of the shoppers: users
    f32[B, E], dense f32[B, D], categorical i64[B, K], history i64[B, L]. signals f32[B, C, S].
    """
    size, length, candidates = embeddings.shape[1], history.shape[1], rows.shape[1]
    numbers, words, kinds = item_dense.shape[1], item_categorical.shape[1], signals.shape[2]
    width = weights.item_codes.table.shape[1]
    first = np.empty(len(weights.user_bias), np.float32)
    recent = np.empty((length + 1, size), np.float32)
    at = np.empty(TILE, np.int64)
    vectors = np.empty((size, TILE), np.float32)
    like = np.empty((length + 1, TILE), np.float32)
    facts = np.empty((weights.item_side.shape[1], TILE), np.float32)
    related = facts[numbers + words * width :]
    hidden = np.empty((len(first), TILE), np.float32)
    deeper = np.empty((len(weights.deep_bias), TILE), np.float32)
    total = np.empty(TILE, np.float32)
    for b in range(len(rows)):
        seen = ZERO
        fill(recent, ZERO)
        for k in range(length):
            if history[b, k] >= 0:
                seen += ONE
                for e in range(size):
                    recent[k, e] = embeddings[history[b, k], e]
        for e in range(size):
            recent[length, e] = users[b, e]
        user_part(weights, dense[b], categorical[b], seen / np.float32(length), first)
        for start in range(0, candidates, TILE):
            filled = min(TILE, candidates - start)
            for c in range(TILE):
                at[c] = max(rows[b, start + c], 0) if c < filled else 0
            for c in range(TILE):
                row = at[c]
                for e in range(size):
                    vectors[e, c] = embeddings[row, e]
                for f in range(numbers):
                    facts[f, c] = clip(item_dense[row, f])
                for g in range(words):
                    code = weights.item_codes.first[g] + item_categorical[row, g]
                    for i in range(width):
                        facts[numbers + g * width + i, c] = weights.item_codes.table[code, i]
            fill(like, ZERO)
            add_product(recent, vectors, like)
            relate(like, at, history[b], max(seen, ONE), related)
            place = 8
            for s in range(kinds):
                for c in range(TILE):
                    said = max(signals[b, start + c, s], ZERO) if c < filled else ZERO
                    related[place + s, c] = min(np.sqrt(said), LIMIT)
                    related[place + kinds + s, c] = np.log(said + FLOOR) * LOG_SCALE
            place += 2 * kinds
            if len(weights.price):
                price = weights.price
                mine = clip(dense[b, int(price[3])]) / price[5] + price[4]
                for c in range(TILE):
                    gap = clip(facts[int(price[0]), c] / price[2] + price[1] - mine)
                    related[place, c] = gap
                    related[place + 1, c] = abs(gap)
                place += 2
            if len(weights.category):
                mine_code = categorical[b, weights.category[1]]
                for c in range(TILE):
                    alike = mine_code > 0 and item_categorical[at[c], weights.category[0]] == mine_code
                    related[place, c] = ONE if alike else ZERO
            for j in range(len(first)):
                for c in range(TILE):
                    hidden[j, c] = first[j]
            add_product(weights.item_side, facts, hidden)
            for j in range(len(first)):
                for c in range(TILE):
                    hidden[j, c] = max(hidden[j, c], ZERO)
            for j in range(len(deeper)):
                for c in range(TILE):
                    deeper[j, c] = weights.deep_bias[j]
            add_product(weights.deep, hidden, deeper)
            for c in range(TILE):
                total[c] = weights.last_bias[0]
            for j in range(len(deeper)):
                for c in range(TILE):
                    total[c] += weights.last[j] * max(deeper[j, c], ZERO)
            for i in range(len(weights.shortcut)):
                for c in range(TILE):
                    total[c] += weights.shortcut[i] * related[i, c]
            for c in range(filled):
                out[b, start + c] = total[c] if rows[b, start + c] >= 0 else -np.inf
