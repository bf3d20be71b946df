"""Arrays that grow in place: behind their rows lies room for more, which is no memory before something fills it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def room_for(rows: int) -> int:
    """How many rows there is to be room for where there are so many."""
    return rows + rows // 8 + 64


def longer(array: npt.NDArray[Any], count: int, fill: Any) -> npt.NDArray[Any]:
    """The array with `count` more rows of `fill`. The rows before stay in place where its buffer has room."""
    size = len(array) + count
    room = array.base
    if not (isinstance(room, np.ndarray) and starts_alike(room, array) and len(room) >= size):
        room = np.empty((room_for(size), *array.shape[1:]), array.dtype)
        room[: len(array)] = array
    room[len(array) : size] = fill
    return room[:size]


def starts_alike(room: npt.NDArray[Any], array: npt.NDArray[Any]) -> bool:
    same = room.shape[1:] == array.shape[1:] and room.dtype == array.dtype and room.flags.writeable
    return same and room.ctypes.data == array.ctypes.data and room.flags.c_contiguous
