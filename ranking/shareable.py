"""Large tables in memory that a fork maps only where it reads, and copies only where it writes."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


def shareable(rows: int, width: int, fill: Callable[[F32], None]) -> F32:
    """float32[rows, width] as `fill` leaves it, which is given one to fill.

    A file in memory, mapped privately (Linux; elsewhere an ordinary array). A process that only waits for the others
    holds none of it, and what one of them changes, the others do not see. Room for an eighth more rows is kept behind
    them, which is no memory before something fills it, and spares a copy of all of it then.
    """
    room = rows + rows // 8 + 64
    size = room * width * np.dtype(np.float32).itemsize
    if not size or not hasattr(os, "memfd_create"):
        out = np.empty((room, width), np.float32)[:rows]
        fill(out)
        return out
    file = os.memfd_create("endcap-table", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, size)
        with mmap.mmap(file, size) as shared:
            fill_in(shared, rows, width, fill)
        private = mmap.mmap(file, size, mmap.MAP_PRIVATE)
    finally:
        os.close(file)
    return np.ndarray((room, width), np.float32, private)[:rows]


def fill_in(memory: mmap.mmap, rows: int, width: int, fill: Callable[[F32], None]) -> None:
    """In a function of its own: an array that still looks at the memory would keep it from being unmapped."""
    fill(np.ndarray((rows, width), np.float32, memory))
