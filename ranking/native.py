"""Python compiled to machine code for this CPU. The only module that imports numba.

What is compiled is kept beside its source, or in the user's cache where that cannot be written. numba notices when the
file of a compiled function changes, not when one that it calls does: a compiled function calls others of its own file
only. Whole arrays are assigned element by element: numba takes seconds to compile `a[:] = b`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def native(function: F) -> F:
    """The function compiled at its first call with arguments of each type. It runs without the interpreter's lock and
    checks no bounds. Multiplications and additions may be fused, but not reordered: a result does not depend on how
    many others are computed beside it.
    """
    options = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    compiled: F
    try:
        compiled = njit(cache=True, **options)(function)
    except RuntimeError:  # numba found nowhere to write: compiled anew in each process
        compiled = njit(**options)(function)
    return compiled
