"""Large tables in memory that a fork maps only where it reads, and copies only where it writes.

A process that only waits for the others holds none of them, and what one of them changes, the others do not see. Room
for more rows is kept behind each (`ranking.room`): growing copies nothing.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ranking.room import room_for

F32 = npt.NDArray[np.float32]
Kind = TypeVar("Kind", bound=np.generic)


def shareable(rows: int, width: int, fill: Callable[[F32], None]) -> F32:
    """float32[rows, width] as `fill` leaves it, which is given one to fill."""
    return in_file((rows, width), np.dtype(np.float32), fill)


def shared(array: npt.NDArray[Kind]) -> npt.NDArray[Kind]:
    """A copy of an array of one dimension or more in such memory."""
    return in_file(array.shape, array.dtype, lambda out: np.copyto(out, array))


def in_file(shape: tuple[int, ...], kind: np.dtype[Any], fill: Callable[[npt.NDArray[Any]], None]) -> npt.NDArray[Any]:
    """An array as `fill` leaves it: a file in memory, mapped privately (Linux; elsewhere an ordinary array)."""
    whole = (room_for(shape[0]), *shape[1:])
    size = int(np.prod(whole)) * kind.itemsize
    if not size or not hasattr(os, "memfd_create"):
        out = np.empty(whole, kind)[: shape[0]]
        fill(out)
        return out
    file = os.memfd_create("endcap-table", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, size)
        with mmap.mmap(file, size) as memory:
            fill_in(memory, shape, kind, fill)
        private = mmap.mmap(file, size, mmap.MAP_PRIVATE)
    finally:
        os.close(file)
    return np.ndarray(whole, kind, private)[: shape[0]]


def fill_in(
    memory: mmap.mmap, shape: tuple[int, ...], kind: np.dtype[Any], fill: Callable[[npt.NDArray[Any]], None]
) -> None:
    """In a function of its own: an array that still looks at the memory would keep it from being unmapped."""
    fill(np.ndarray(shape, kind, memory))


def opened(path: Path) -> np.memmap[Any, np.dtype[Any]]:
    """The array of a `.npy` file, mapped copy-on-write. Raises OSError, and ValueError for any other kind of file."""
    try:
        found = np.load(path, mmap_mode="c", allow_pickle=False)
    except EOFError as error:
        raise ValueError(str(error)) from error
    if not isinstance(found, np.memmap):
        found.close()
        raise ValueError("is an archive, no array")
    return found


def mapped(path: Path) -> npt.NDArray[Any]:
    """The array of a `.npy` file, mapped privately, so that it may be written to and the file stays as it is.

    Raises OSError and ValueError as `opened` does. Room behind it there is on Linux, for an array in C order.
    """
    found = opened(path)
    if not sys.platform.startswith("linux") or not found.ndim or not found.size or not found.flags.c_contiguous:
        return np.asarray(found)
    whole = (room_for(len(found)), *found.shape[1:])
    room = mmap.mmap(-1, found.offset + int(np.prod(whole)) * found.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    lay_over(room, path, found.offset + found.nbytes)
    return np.ndarray(whole, found.dtype, room, found.offset)[: len(found)]


def lay_over(room: mmap.mmap, path: Path, size: int) -> None:
    """Maps the first `size` bytes of a file over the beginning of the room, which holds as many. Raises OSError.

    The room's object unmaps both when it goes. Of the file's last page what lies behind its end is room as well.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    start = np.frombuffer(room, np.uint8).ctypes.data
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(file).st_size < size:  # a look behind a file's end would end the process
            raise OSError(f"{path.name} has become shorter")
        how = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | MAP_FIXED, file, 0
        if libc.mmap(start, size, *how) != start:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(path))
    finally:
        os.close(file)


MAP_FIXED = 0x10
"""Linux's, which the `mmap` module does not name."""
