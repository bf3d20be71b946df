"""A ranker's layers after the first for many candidates in one pass, on a CPU with AVX-512: nothing but scores is
written to memory. In int8 (with VNNI), to see who is far behind, or in float32.

Candidates are taken ROWS at a time, so that a weight that was loaded serves all of them, and their sums for 64 outputs
stay in registers. A candidate's score does not depend on who else is scored.

The blocking is that of Kazushige Goto and Robert van de Geijn, "Anatomy of High-Performance Matrix Multiplication",
ACM TOMS 2008; the sums of four products of bytes are Intel's VPDPBUSD (Intel 64 and IA-32 SDM, volume 2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ranking.factor import Mlp
from ranking.native import VNNI, loose, prefetch, target_has

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

ROWS, BLOCKS, LANES = 6, 4, 16
WIDE = BLOCKS * LANES
"""Outputs of the layer whose sums are in registers at a time."""
LEVELS = np.float32(255)
LEAST = 1e-30
AHEAD, LINE = 8, 64
"""Rows of the table that are on their way while others are worked on, and the bytes of a cache line."""
AVX512 = target_has("avx512f")

FLOAT, INT = ir.FloatType(), ir.IntType(32)
FLOATS, INTS, BYTES = (ir.VectorType(kind, LANES) for kind in (FLOAT, INT, ir.IntType(8)))


def fits(mlp: Mlp, *, exact: bool) -> bool:
    """Whether there is a pass for such layers on this CPU."""
    return bool(AVX512 if exact else VNNI) and mlp.weight.shape[1] % LANES == 0


class Fused:
    """Scores, before any sigmoid, of one shopper's candidates. `exact`: in float32. Not for concurrent callers."""

    def __init__(self, mlp: Mlp, *, exact: bool) -> None:
        outputs, width = mlp.weight.shape
        more = -outputs % WIDE
        weight = np.pad(mlp.weight.numpy(), ((0, more), (0, 0)))
        self.bias, self.last = (np.pad(one.numpy(), (0, more)) for one in (mlp.bias, mlp.last))
        self.last_bias = np.float32(mlp.last_bias.item())
        self.exact = exact
        self.scale = np.maximum(np.abs(weight).max(1), np.float32(LEAST)) / np.float32(127)
        each = 1 if exact else 4  # inputs that are multiplied at once
        if not exact:
            weight = np.rint(weight / self.scale[:, None]).astype(np.int8)
        parts = weight.reshape(-1, BLOCKS, LANES, width // each, each)
        self.weight = np.ascontiguousarray(parts.transpose(0, 3, 1, 2, 4))
        self.hidden, self.coded = np.zeros((ROWS, width), np.float32), np.zeros((ROWS, width), np.uint8)
        self.scales, self.sums = np.zeros(ROWS, np.float32), np.zeros(ROWS, np.float32)

    def scores(self, table: F32, user: F32, rows: I64) -> F32:
        """f32[C] for rows i64[C] of table f32[N, H] (the candidates' share of the first layer) and user f32[H]."""
        out = np.empty(len(rows), np.float32)
        if self.exact:
            in_floats(table, user, rows, self.weight, self.bias, self.last, self.last_bias, self.hidden, self.sums, out)
        else:
            in_bytes(
                table, user, rows, self.weight, self.scale, self.bias, self.last, self.last_bias, self.hidden[0],
                self.coded, self.scales, self.sums, out,
            )  # fmt: skip
        return out


def there(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
    """A pointer to what lies so many bytes, an int or an i64, after an address."""
    far = ir.Constant(ir.IntType(64), offset) if isinstance(offset, int) else offset
    return builder.inttoptr(builder.add(address, far), kind.as_pointer())


def times(builder: Any, index: Any, size: int) -> Any:
    return builder.mul(index, ir.Constant(ir.IntType(64), size))


def everywhere(builder: Any, number: Any, kind: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(INT, 0))
    return builder.shuffle_vector(one, one, ir.Constant(INTS, [0] * LANES))


def larger(builder: Any, one: Any, other: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", one, other), one, other)


@intrinsic  # type: ignore[untyped-decorator]
def code_row(context: Any, row: Any, user: Any, hidden: Any, coded: Any, width: Any) -> Any:
    """relu(row + user) in 255 steps up to the largest, which is returned. Addresses of float32[width] (`hidden` is
    scratch) and of uint8[width]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, user, hidden, coded, width = arguments
        none = ir.Constant(FLOATS, [0.0] * LANES)
        best = cgutils.alloca_once_value(builder, none)
        count = builder.sdiv(width, ir.Constant(width.type, LANES))
        with cgutils.for_range(builder, count) as loop:
            at = times(builder, loop.index, 4 * LANES)
            ours, theirs = (builder.load(there(builder, one, at, FLOATS), align=4) for one in (row, user))
            value = larger(builder, builder.fadd(ours, theirs), none)
            builder.store(value, there(builder, hidden, at, FLOATS), align=4)
            builder.store(larger(builder, builder.load(best), value), best)
        reduce = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(FLOAT, [FLOATS]), "llvm.vector.reduce.fmax.v16f32"
        )
        most = larger(builder, builder.call(reduce, [builder.load(best)]), ir.Constant(FLOAT, LEAST))
        factor = everywhere(builder, builder.fdiv(ir.Constant(FLOAT, float(LEVELS)), most), FLOATS)
        half = ir.Constant(FLOATS, [0.5] * LANES)
        with cgutils.for_range(builder, count) as loop:
            value = builder.load(there(builder, hidden, times(builder, loop.index, 4 * LANES), FLOATS), align=4)
            step = builder.fptosi(builder.fadd(builder.fmul(value, factor), half), INTS)
            place = there(builder, coded, times(builder, loop.index, LANES), BYTES)
            builder.store(builder.trunc(step, BYTES), place, align=1)
        return most

    return types.float32(*[types.int64] * 5), generate


def tile(exact: bool) -> Any:
    """The pass over ROWS candidates. Its arguments: the addresses of their inputs (uint8 or float32 [ROWS, width]), of
    the weights as `Fused` lays them out, of `scales` f32[ROWS], of `scale`, `bias` and `last` f32[outputs], and of the
    scores f32[ROWS]."""
    size, each, kind, sums_of = (4, 1, FLOATS, FLOATS) if exact else (1, 4, INTS, INTS)
    number = FLOAT if exact else INT

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        inputs, width, weights, outputs, scales, scale, bias, last, out = arguments
        nothing, none = ir.Constant(sums_of, [0] * LANES), ir.Constant(FLOATS, [0.0] * LANES)
        name = "llvm.fma.v16f32" if exact else "llvm.x86.avx512.vpdpbusd.512"
        add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        totals = [cgutils.alloca_once_value(builder, none) for _ in range(ROWS)]
        sums = [[cgutils.alloca_once(builder, sums_of) for _ in range(BLOCKS)] for _ in range(ROWS)]
        for total in totals:
            builder.store(none, total)
        steps = builder.sdiv(width, ir.Constant(width.type, each))
        rows = [builder.add(inputs, times(builder, width, r * size)) for r in range(ROWS)]
        with cgutils.for_range(builder, builder.sdiv(outputs, ir.Constant(width.type, WIDE))) as outer:
            for one in sums:
                for place in one:
                    builder.store(nothing, place)
            begin = builder.add(weights, builder.mul(outer.index, times(builder, steps, LINE * BLOCKS)))
            with cgutils.for_range(builder, steps) as inner:
                first = builder.add(begin, times(builder, inner.index, LINE * BLOCKS))
                loaded = [builder.load(there(builder, first, LINE * k, kind), align=1) for k in range(BLOCKS)]
                for row, places in zip(rows, sums, strict=True):
                    value = builder.load(there(builder, row, times(builder, inner.index, 4), number), align=1)
                    given = everywhere(builder, value, kind)
                    for weight, place in zip(loaded, places, strict=True):
                        so_far = builder.load(place)
                        taken = [given, weight, so_far] if exact else [so_far, given, weight]
                        builder.store(builder.call(add, taken), place)
            for k in range(BLOCKS):
                at = builder.add(times(builder, outer.index, 4 * WIDE), ir.Constant(width.type, 4 * LANES * k))
                a_scale, a_bias, a_last = (
                    builder.load(there(builder, one, at, FLOATS), align=4) for one in (scale, bias, last)
                )
                for r, (places, total) in enumerate(zip(sums, totals, strict=True)):
                    value = builder.load(places[k])
                    if not exact:
                        own = everywhere(builder, builder.load(there(builder, scales, 4 * r, FLOAT), align=4), FLOATS)
                        value = builder.fmul(builder.sitofp(value, FLOATS), builder.fmul(own, a_scale))
                    value = larger(builder, builder.fadd(value, a_bias), none)
                    builder.store(builder.fadd(builder.load(total), builder.fmul(value, a_last)), total)
        reduce = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(FLOAT, [FLOAT, FLOATS]), "llvm.vector.reduce.fadd.v16f32"
        )
        for r, total in enumerate(totals):
            said = builder.call(reduce, [ir.Constant(FLOAT, 0.0), builder.load(total)], fastmath=("reassoc",))
            builder.store(said, there(builder, out, 4 * r, FLOAT), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), generate


@intrinsic  # type: ignore[untyped-decorator]
def tile_of_bytes(
    context: Any, inputs: Any, width: Any, weights: Any, outputs: Any, scales: Any, scale: Any, bias: Any, last: Any,
    out: Any,
) -> Any:  # fmt: skip
    return tile(exact=False)


@intrinsic  # type: ignore[untyped-decorator]
def tile_of_floats(
    context: Any, inputs: Any, width: Any, weights: Any, outputs: Any, scales: Any, scale: Any, bias: Any, last: Any,
    out: Any,
) -> Any:  # fmt: skip
    return tile(exact=True)


@loose
def in_bytes(
    table: F32, user: F32, rows: I64, weight: npt.NDArray[np.int8], scale: F32, bias: F32, last: F32,
    last_bias: np.float32, hidden: F32, coded: npt.NDArray[np.uint8], scales: F32, sums: F32, out: F32,
) -> None:  # fmt: skip
    width, first, stride = table.shape[1], table.ctypes.data, table.strides[0]
    for start in range(0, len(rows), ROWS):
        count = min(ROWS, len(rows) - start)
        for r in range(count):
            i = start + r
            if i + AHEAD < len(rows):
                for line in range(0, stride, LINE):
                    prefetch(first + rows[i + AHEAD] * stride + line)
            most = code_row(
                first + rows[i] * stride, user.ctypes.data, hidden.ctypes.data, coded.ctypes.data + r * width, width
            )
            scales[r] = most / LEVELS
        tile_of_bytes(
            coded.ctypes.data, width, weight.ctypes.data, len(bias), scales.ctypes.data, scale.ctypes.data,
            bias.ctypes.data, last.ctypes.data, sums.ctypes.data,
        )  # fmt: skip
        for r in range(count):
            out[start + r] = sums[r] + last_bias


@loose
def in_floats(
    table: F32, user: F32, rows: I64, weight: F32, bias: F32, last: F32, last_bias: np.float32, hidden: F32, sums: F32,
    out: F32,
) -> None:  # fmt: skip
    width, first, stride = table.shape[1], table.ctypes.data, table.strides[0]
    for start in range(0, len(rows), ROWS):
        count = min(ROWS, len(rows) - start)
        for r in range(count):
            i = start + r
            if i + AHEAD < len(rows):
                for line in range(0, stride, LINE):
                    prefetch(first + rows[i + AHEAD] * stride + line)
            row = rows[i]
            for j in range(width):
                hidden[r, j] = max(table[row, j] + user[j], np.float32(0))
        tile_of_floats(
            hidden.ctypes.data, width, weight.ctypes.data, len(bias), bias.ctypes.data, bias.ctypes.data,
            bias.ctypes.data, last.ctypes.data, sums.ctypes.data,
        )  # fmt: skip
        for r in range(count):
            out[start + r] = sums[r] + last_bias
