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
