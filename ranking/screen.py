"""The best of many candidates by an int8 copy of the ranker's widest layer, and those few exactly.

An int8 product takes a quarter of the time of a float32 one where the CPU has VNNI, and says who is far behind, not who
is ahead: so the best by it are scored again in float32, and what it said of them beside the truth bounds what it may
have got wrong about the rest. Where that leaves a doubt, everything is scored in float32.

Source of the quantization (a scale for each row of weights and each row of activations, both symmetric): Benoit Jacob
et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ranking.factor import Mlp
from ranking.native import loose, native, prefetch

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
MOST = np.float32(127)
ZERO, LOWEST = np.float32(0), np.float32(-np.inf)
DOUBT = np.float32(2)
"""How many times the largest error seen among those scored exactly the others may be wrong by."""
LEAST = np.float32(1e-30)
AHEAD, LINE = 8, 64
"""Rows of the table that are on their way while one is worked on, and the bytes of a cache line."""
ROUND = np.float32(1.5 * 2**23)
"""Added to a small float32, it leaves the nearest integer in the low bits: numba converts floats one by one."""


class Screen:
    """Approximate scores of one shopper's candidates. Not for concurrent callers."""

    def __init__(self, mlp: Mlp) -> None:
        scale = mlp.weight.abs().amax(1).clamp(min=float(LEAST)) / float(MOST)
        self.weight = (mlp.weight / scale[:, None]).round().to(torch.int8).t()  # [H, M]
        self.scale, self.bias, self.last = (one.contiguous().numpy() for one in (scale, mlp.bias, mlp.last))
        self.last_bias = np.float32(mlp.last_bias.item())
        self.make_room(512)

    def scores(self, table: F32, user: F32, rows: I64) -> F32:
        """f32[C] for rows i64[C] of table f32[N, H] (the candidates' share of the first layer) and user f32[H]."""
        size = len(rows)
        if size > len(self.coded):
            self.make_room(size)
        coded, products, scales = self.coded[:size], self.products[:size], np.empty(size, np.float32)
        activate(table, user, rows, coded.numpy(), scales)
        torch._int_mm(coded, self.weight, out=products)
        out = np.empty(size, np.float32)
        finish(products.numpy(), scales, self.scale, self.bias, self.last, self.last_bias, out)
        return out

    def make_room(self, size: int) -> None:
        """Buffers that are made once: memory fresh from the kernel costs more than the product."""
        self.coded = torch.empty(size, len(self.weight), dtype=torch.int8)
        self.products = torch.empty(size, len(self.bias), dtype=torch.int32)


@loose
def activate(table: F32, user: F32, rows: I64, coded: npt.NDArray[np.int8], scales: F32) -> None:
    """relu(table[row] + user) as int8, each row by a scale of its own."""
    width = table.shape[1]
    hidden = np.empty(width, np.float32)
    bits, largest = hidden.view(np.int32), np.empty(1, np.int32)
    first, stride = table.ctypes.data, table.strides[0]
    for c in range(len(rows)):
        if c + AHEAD < len(rows):
            for line in range(0, stride, LINE):
                prefetch(first + rows[c + AHEAD] * stride + line)
        row = rows[c]
        for j in range(width):
            hidden[j] = max(table[row, j] + user[j], ZERO)
        most = np.int32(1)
        for j in range(width):  # floats that are not negative stand in the order of their bits
            most = max(most, bits[j])
        largest[0] = most
        factor = MOST / largest.view(np.float32)[0]
        scales[c] = largest.view(np.float32)[0] / MOST
        for j in range(width):
            hidden[j] = hidden[j] * factor + ROUND
        for j in range(width):
            coded[c, j] = bits[j]


@loose
def finish(
    products: npt.NDArray[np.int32], scales: F32, scale: F32, bias: F32, last: F32, last_bias: np.float32, out: F32
) -> None:
    """The second layer's activation and the last layer, from int32 products [C, M]."""
    for c in range(len(out)):
        total = last_bias
        for j in range(len(bias)):
            value = np.float32(products[c, j]) * (scales[c] * scale[j]) + bias[j]
            total += max(value, ZERO) * last[j]
        out[c] = total


class Exact:
    """Scores, before any sigmoid, of one shopper's candidates in float32: one matrix product of torch's, and compiled
    code around it. Not for concurrent callers."""

    def __init__(self, mlp: Mlp) -> None:
        self.weight, self.bias = mlp.weight.t(), mlp.bias  # [H, M], [M]
        self.last, self.last_bias = mlp.last.contiguous().numpy(), np.float32(mlp.last_bias.item())
        self.make_room(512)

    def scores(self, table: F32, user: F32, rows: I64) -> F32:
        """f32[C], as `Screen.scores` takes them."""
        size = len(rows)
        if size > len(self.hidden):
            self.make_room(size)
        hidden, products, out = self.hidden[:size], self.products[:size], np.empty(size, np.float32)
        hide(table, user, rows, hidden.numpy(), ZERO)
        torch.addmm(self.bias, hidden, self.weight, out=products)
        last_layer(products.numpy(), self.last, self.last_bias, out)
        return out

    def make_room(self, size: int) -> None:
        self.hidden, self.products = torch.empty(size, len(self.weight)), torch.empty(size, len(self.bias))


@native
def hide(table: F32, user: F32, rows: I64, out: F32, floor: np.float32) -> None:
    """out[C, H] = table[row] + user, no less than `floor`."""
    for c in range(len(rows)):
        row = rows[c]
        for j in range(table.shape[1]):
            out[c, j] = max(table[row, j] + user[j], floor)


@native
def last_layer(products: F32, last: F32, last_bias: np.float32, out: F32) -> None:
    for c in range(len(out)):
        out[c] = last_bias + weighed(products[c], last)


@loose
def weighed(products: F32, last: F32) -> np.float32:
    total = ZERO
    for j in range(len(last)):
        total += max(products[j], ZERO) * last[j]
    return total


@native
def settle(near: F32, order: I64, exact: F32, keep: int, out: F32) -> bool:
    """Whether the best `keep` are certain: `order` i64[C] ends with the places whose scores `exact` f32[m] has, and
    what `near` f32[C] said of those bounds what it may have got wrong about the others. Puts the scores at their places
    in `out` if so.
    """
    behind = len(near) - len(exact)
    edge = LOWEST
    for i in range(behind):
        edge = max(edge, near[order[i]])
    wrong = ZERO
    for i in range(len(exact)):
        wrong = max(wrong, abs(exact[i] - near[order[behind + i]]))
    edge += DOUBT * wrong
    sure = 0
    for i in range(len(exact)):
        sure += 1 if exact[i] >= edge else 0
    if sure < keep:
        return False
    for i in range(len(exact)):
        out[order[behind + i]] = exact[i]
    return True
