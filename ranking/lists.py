"""What a search by our own scan reads: lists of rows, their centres, and an int8 code of every vector in list order.

A bundle keeps it as files that are mapped when it is loaded: nothing is computed then, processes share the pages, and
what no search looks at is not in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ranking.native import native
from ranking.shareable import opened

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
I8 = npt.NDArray[np.int8]

MOST, LEAST = np.float32(127), np.float32(1e-30)
STEM = "scan_"
PARTS = {"centres": np.float32, "offsets": np.int64, "rows": np.int32, "codes": np.int8, "steps": np.float32}


@dataclass(frozen=True, slots=True)
class Lists:
    """List l holds `rows[offsets[l]:offsets[l + 1]]`; a row's vector is about `codes * steps`."""

    centres: F32  # [L, E]
    offsets: I64  # [L + 1]
    rows: I32  # [N]
    codes: I8  # [N, E]
    steps: F32  # [N]

    @classmethod
    def of(cls, centres: F32, offsets: I64, rows: I32, vectors: F32) -> Lists:
        """The lists of vectors f32[N, E], encoded."""
        codes, steps = np.empty((len(rows), vectors.shape[1]), np.int8), np.empty(len(rows), np.float32)
        encode(vectors, rows, codes, steps)
        return cls(centres, offsets, rows, codes, steps)

    def save(self, directory: Path) -> None:
        """Raises OSError when the disk refuses."""
        for name in PARTS:
            np.save(file(directory, name), getattr(self, name))

    @classmethod
    def load(cls, directory: Path, shape: tuple[int, int]) -> Lists:
        """The lists of vectors of this shape (N, E), mapped. Raises ValueError where the files are not of that."""
        # Copy-on-write, as compiled code is compiled for arrays that may be written to; nobody writes.
        found = {name: part(directory, name) for name in PARTS}
        for name, kind in PARTS.items():
            if found[name].dtype != kind or not found[name].flags.c_contiguous:
                raise ValueError(f"{STEM}{name}.npy holds {found[name].dtype}, not {np.dtype(kind)}")
        size, width = shape
        lists = len(found["centres"])
        shapes = {"centres": (lists, width), "offsets": (lists + 1,), "rows": (size,), "codes": shape, "steps": (size,)}
        for name, wanted in shapes.items():
            if found[name].shape != wanted:
                raise ValueError(f"{STEM}{name}.npy is of shape {found[name].shape}, not {wanted}")
        if not lists or not are_lists(found["offsets"], found["rows"]):
            raise ValueError(f"{STEM}rows.npy does not hold each of {size} rows once")
        return cls(**found)


def part(directory: Path, name: str) -> npt.NDArray[Any]:
    """Raises ValueError, which names the file."""
    try:
        return np.asarray(opened(file(directory, name)))
    except (OSError, ValueError) as error:
        raise ValueError(f"{STEM}{name}.npy: {error}") from error


def file(directory: Path, name: str) -> Path:
    return directory / f"{STEM}{name}.npy"


@native
def encode(vectors: F32, rows: I32, codes: I8, steps: F32) -> None:
    """Each vector in steps of its largest number's 127th part."""
    for i in range(len(rows)):
        most = LEAST
        for e in range(vectors.shape[1]):
            most = max(most, abs(vectors[rows[i], e]))
        steps[i] = most / MOST
        for e in range(vectors.shape[1]):
            codes[i, e] = np.int8(np.rint(vectors[rows[i], e] / steps[i]))


@native
def are_lists(offsets: I64, rows: I32) -> bool:
    """Whether the lists hold each row once: compiled code checks no bounds."""
    size = len(rows)
    if offsets[0] != 0 or offsets[len(offsets) - 1] != size:
        return False
    for one in range(len(offsets) - 1):
        if offsets[one + 1] < offsets[one]:
            return False
    seen = np.zeros(size, np.uint8)
    for i in range(size):
        if rows[i] < 0 or rows[i] >= size or seen[rows[i]] != 0:
            return False
        seen[rows[i]] = 1
    return True
