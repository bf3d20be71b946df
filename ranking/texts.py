"""Ids and titles of all items without a Python object for each: UTF-8 in one block of memory, and a hash table of rows.

A list and a dict of a million strings take seconds to make and 200 MB, and every process that reads them writes to them
(reference counts), so forked workers would not share them. What changes after loading is kept in dicts beside.

The table is open addressing with linear probing (Knuth, The Art of Computer Programming 3, section 6.4, algorithm L),
at most half full; the hash is FNV-1a: https://datatracker.ietf.org/doc/draft-eastlake-fnv/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranking.native import native

Bytes = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

EMPTY = -1
SEED, PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
FOLD = np.uint64(32)
BLOCK = 65536
SEPARATOR = "\0"


class Texts(Sequence[str]):
    """Texts by row, of a column of strings without nulls. `append` and assignment are for the engine's thread only."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        whole = column.cast(pa.large_string()).combine_chunks()
        _, offsets, data = whole.buffers()
        ends = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
        self.ends: I64 = ends - ends[0]  # [N + 1]: where each begins, and where the last one ends
        # One by one they are read through bytes and a memoryview: a third of the time that numpy takes.
        self.text = bytes(memoryview(data)[ends[0] : ends[-1]]) if data else b""
        self.block: Bytes = np.frombuffer(self.text or b"\0", np.uint8)[: len(self.text)]
        self.places = memoryview(self.ends)
        self.size = len(whole)
        self.late: list[str] = []
        self.changed: dict[int, str] = {}

    def __len__(self) -> int:
        return self.size + len(self.late)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if row < 0:
            row += len(self)
            if row < 0:
                raise IndexError(row)
        if self.changed and row in self.changed:
            return self.changed[row]
        if row >= self.size:
            return self.late[row - self.size]
        return self.text[self.places[row] : self.places[row + 1]].decode()

    def take(self, rows: Sequence[int]) -> list[str]:
        """The texts of rows of 0 or more."""
        if self.changed or self.late:
            return [self[row] for row in rows]
        text, places = self.text, self.places
        return [text[places[row] : places[row + 1]].decode() for row in rows]

    def __setitem__(self, row: int, text: str) -> None:
        self.changed[row] = text

    def __iter__(self) -> Iterator[str]:
        for start in range(0, self.size, BLOCK):
            ends = self.ends[start : min(start + BLOCK, self.size) + 1]
            block = self.text[ends[0] : ends[-1]]
            places = (ends - ends[0]).tolist()
            for row, (first, last) in enumerate(pairwise(places), start):
                yield self.changed[row] if row in self.changed else block[first:last].decode()
        for row, text in enumerate(self.late, self.size):
            yield self.changed.get(row, text)

    def append(self, text: str) -> None:
        self.late.append(text)


class RowOf:
    """The row of each id: what a dict of all ids would say. Assignment and `pop` are for the engine's thread only.

    Raises ValueError, which names an id that is there twice.
    """

    def __init__(self, ids: Texts) -> None:
        self.ids, self.count = ids, len(ids)
        self.slots: I32 = np.full(1 << max(2 * len(ids) - 1, 1).bit_length(), EMPTY, np.int32)
        if (twice := fill(ids.block, ids.ends, self.slots)) != EMPTY:
            raise ValueError(f"has {ids[twice]!r} twice")
        self.changed: dict[str, int] = {}  # EMPTY where it was taken out
        self.get("")  # compiled, or loaded, here and not between two batches

    def rows(self, names: Sequence[str]) -> I64:
        """int64[n], -1 for each id that is unknown."""
        out = np.full(len(names), EMPTY, np.int64)
        if not names:
            return out
        asked = as_bytes(SEPARATOR.join(names))
        if find(asked, self.ids.block, self.ids.ends, self.slots, out) != len(names):  # a separator within an id
            out[:] = [self.get(one, EMPTY) for one in names]
        elif self.changed:
            out[:] = [self.changed.get(one, row) for one, row in zip(names, out.tolist(), strict=True)]
        return out

    @overload
    def get(self, name: str) -> int | None: ...
    @overload
    def get(self, name: str, default: int) -> int: ...
    def get(self, name: str, default: int | None = None) -> int | None:
        row = self.changed.get(name)
        if row is None:
            row = look_up(as_bytes(name), self.ids.block, self.ids.ends, self.slots)
        return default if row == EMPTY else row

    def __getitem__(self, name: str) -> int:
        if (row := self.get(name)) is None:
            raise KeyError(name)
        return row

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        kept = (name for name in self.ids if self.changed.get(name) is None)
        yield from kept
        yield from (name for name, row in list(self.changed.items()) if row != EMPTY)

    def __setitem__(self, name: str, row: int) -> None:
        self.count += name not in self
        self.changed[name] = row

    def pop(self, name: str, default: int | None = None) -> int | None:
        """Takes an id out; returns the row that it had, or the default."""
        row = self.get(name)
        if row is None:
            return default
        self.count -= 1
        self.changed[name] = EMPTY
        return row


def as_bytes(text: str) -> Bytes:
    return np.frombuffer(text.encode(errors="surrogatepass") or b"\0", np.uint8)[: None if text else 0]


@native
def hashed(text: Bytes, first: int, last: int) -> np.uint64:
    found = SEED
    for i in range(first, last):
        found = (found ^ np.uint64(text[i])) * PRIME
    return found ^ (found >> FOLD)


@native
def place(text: Bytes, first: int, last: int, block: Bytes, ends: I64, slots: I32) -> np.int64:
    """The slot that holds the row of this text, or the empty one where it would be."""
    mask = len(slots) - 1
    at = np.int64(hashed(text, first, last) & np.uint64(mask))
    while slots[at] != EMPTY:
        start = ends[slots[at]]
        if ends[slots[at] + 1] - start == last - first:
            same = True
            for i in range(last - first):
                if block[start + i] != text[first + i]:
                    same = False
                    break
            if same:
                break
        at = (at + 1) & mask
    return at


@native
def fill(block: Bytes, ends: I64, slots: I32) -> int:
    """Enters every row; returns the first that is there already, or EMPTY."""
    for row in range(len(ends) - 1):
        at = place(block, ends[row], ends[row + 1], block, ends, slots)
        if slots[at] != EMPTY:
            return row
        slots[at] = row
    return EMPTY


@native
def look_up(text: Bytes, block: Bytes, ends: I64, slots: I32) -> int:
    row: int = slots[place(text, 0, len(text), block, ends, slots)]
    return row


@native
def find(asked: Bytes, block: Bytes, ends: I64, slots: I32, out: I64) -> int:
    """The rows of texts with a zero byte between each two; returns how many texts there were."""
    count, first = 0, 0
    for i in range(len(asked) + 1):
        if i == len(asked) or asked[i] == 0:
            if count < len(out):
                out[count] = slots[place(asked, first, i, block, ends, slots)]
            count += 1
            first = i + 1
    return count
