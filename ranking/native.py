"""Python compiled to machine code for this CPU. The only module that imports numba.

What is compiled is kept beside its source, or in the user's cache where that cannot be written. numba notices when the
file of a compiled function changes, not when one that it calls does: a compiled function calls others of its own file
only. Whole arrays are assigned element by element: numba takes seconds to compile `a[:] = b`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., object])


def native(function: F) -> F:
    """The function compiled at its first call with arguments of each type. It runs without the interpreter's lock and
    checks no bounds. Multiplications and additions may be fused, but not reordered: a result does not depend on how
    many others are computed beside it.
    """
    return compiled(function, {"contract"})


def loose(function: F) -> F:
    """As `native`, for numbers that need only be near and are never NaN: sums may be reordered, which lets a loop over
    one candidate's numbers use vector instructions."""
    return compiled(function, {"contract", "reassoc", "nnan", "ninf", "nsz"})


def compiled(function: F, fastmath: set[str]) -> F:
    options = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    made: F
    try:
        made = njit(cache=True, **options)(function)
    except RuntimeError:  # numba found nowhere to write: compiled anew in each process
        made = njit(**options)(function)
    return made


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(context: Any, address: Any) -> Any:
    """Asks the CPU to bring in the cache line at an address (int64), and does not wait. For compiled code only."""
    line = ir.IntType(8).as_pointer()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        told = ir.FunctionType(ir.VoidType(), [line, *[ir.IntType(32)] * 3])
        function = cgutils.get_or_insert_function(builder.module, told, "llvm.prefetch.p0")
        read, keep, data = (ir.Constant(ir.IntType(32), value) for value in (0, 3, 1))
        builder.call(function, [builder.inttoptr(arguments[0], line), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def target_has(feature: str) -> bool:
    """Whether the CPU that is compiled for (this one, unless numba was told another) has a feature, by LLVM's name."""
    return f"+{feature}" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


VNNI = target_has("avx512vnni")
"""Whether `dot_64` can be compiled."""


@intrinsic  # type: ignore[untyped-decorator]
def dot_64(context: Any, codes: Any, query: Any) -> Any:
    """The inner product, an int32, of 64 int8 at the address `codes` with 64 numbers of -32,767 to 32,767: at `query`
    lie the upper and then the lower bytes of those numbers with 32,768 added. For compiled code, where VNNI is true."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        told = ir.FunctionType(ir.IntType(32), [LANES])
        reduce = cgutils.get_or_insert_function(builder.module, told, "llvm.vector.reduce.add.v16i32")
        return builder.call(reduce, [products(builder, arguments[0], arguments[1], 0)])

    return types.int32(types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def dots_16_by_64(context: Any, codes: Any, query: Any, steps: Any, unit: Any, edge: Any, out: Any) -> Any:
    """Of 16 codes, one after the other, with a query as `dot_64` takes it: puts the inner products, each times `unit`
    and its own of 16 float32 at `steps`, as float32 at `out`; bit j of the int64 returned says whether the j-th is no
    less than `edge`. For compiled code, where VNNI is true."""
    floats, i32, i64 = ir.VectorType(ir.FloatType(), 16), ir.IntType(32), ir.IntType(64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        codes, query, steps, unit, edge, out = arguments
        rows = [products(builder, codes, query, row * 64) for row in range(16)]
        lane = 1
        while len(rows) > 1:  # the sums over the lanes of two rows in one: which row's, a bit of the lane says
            pairs = zip(rows[::2], rows[1::2], strict=True)
            ways = [[(i & lane and 16) + (i & ~lane) + other for i in range(16)] for other in (0, lane)]
            first, second = (ir.Constant(ir.VectorType(i32, 16), way) for way in ways)
            rows = [
                builder.add(builder.shuffle_vector(one, two, first), builder.shuffle_vector(one, two, second))
                for one, two in pairs
            ]
            lane *= 2

        def everywhere(number: Any) -> Any:
            one = builder.insert_element(ir.Constant(floats, ir.Undefined), number, ir.Constant(i32, 0))
            return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(i32, 16), [0] * 16))

        widths = builder.load(builder.inttoptr(steps, floats.as_pointer()), align=4)
        said = builder.fmul(builder.fmul(widths, everywhere(unit)), builder.sitofp(rows[0], floats))
        builder.store(said, builder.inttoptr(out, floats.as_pointer()), align=4)
        reach = builder.fcmp_ordered(">=", said, everywhere(edge))
        return builder.zext(builder.bitcast(reach, ir.IntType(16)), i64)

    told = (types.int64, types.int64, types.int64, types.float32, types.float32, types.int64)
    return types.int64(*told), generate


LANES = ir.VectorType(ir.IntType(32), 16)


def products(builder: Any, codes: Any, query: Any, offset: int) -> Any:
    """The inner product of 64 int8 with 64 numbers, in 16 parts."""

    def load(address: Any, offset: int) -> Any:
        there = builder.add(address, ir.Constant(address.type, offset))
        return builder.load(builder.inttoptr(there, LANES.as_pointer()), align=1)

    def all_of(value: int) -> Any:
        return ir.Constant(LANES, [value] * 16)

    told = ir.FunctionType(LANES, [LANES] * 3)
    multiply = cgutils.get_or_insert_function(builder.module, told, "llvm.x86.avx512.vpdpbusd.512")
    code = load(codes, offset)
    upper, lower, plain = (
        builder.call(multiply, [all_of(0), weights, code])
        for weights in (load(query, 0), load(query, 64), all_of(0x01010101))
    )
    total = builder.add(builder.shl(upper, all_of(8)), lower)
    return builder.sub(total, builder.shl(plain, all_of(15)))
