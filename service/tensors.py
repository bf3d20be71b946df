"""Tensors of the Open Inference Protocol, from bytes or values to arrays. Nothing is made before its size is known to
be right, so a lie about a size costs nothing.

Raises InvalidRequest, whose path is the tensor's name.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.errors import FieldError, InvalidRequest
from service.oip_wire import Given, TensorSpec

Array = npt.NDArray[Any]

NUMBERS: dict[str, npt.DTypeLike] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
KINDS: dict[str, tuple[set[type], str]] = {
    "FP32": ({int, float}, "a number"), "INT64": ({int}, "an integer"), "BYTES": ({str, bytes}, "a string"),
}  # fmt: skip
UNPACK = struct.Struct("<I").unpack_from
LENGTH = 4
"""Bytes of an element's length, before each element of BYTES."""


class Dimension(NamedTuple):
    """`size` -1 may be anything from 1 to `most`, and is spoken of by its letter."""

    letter: str
    size: int
    most: int = 0

    def fits(self, size: int) -> bool:
        return 1 <= size <= self.most if self.size < 0 else size == self.size

    def __str__(self) -> str:
        return self.letter if self.size < 0 else str(self.size)


@dataclass(frozen=True, slots=True)
class Expected:
    """What an input must be: of one of these datatypes, of these dimensions, of at most so many elements."""

    name: str
    datatypes: tuple[str, ...]
    shape: tuple[Dimension, ...]
    most: int = 1 << 31

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.name, self.datatypes[0], [one.size for one in self.shape])

    def read(self, given: Given) -> Array:
        """int64, float32 or, of BYTES, an array of str."""
        if given.datatype not in self.datatypes:
            raise wrong(self.name, f"datatype is {given.datatype[:100]!r}, expected {' or '.join(self.datatypes)}")
        if len(given.shape) != len(self.shape) or not all(map(Dimension.fits, self.shape, given.shape)):
            free = [f"{one.letter} 1 to {one.most:,}" for one in self.shape if one.size < 0]
            expected = f"[{', '.join(map(str, self.shape))}], {', '.join(free)}"
            raise wrong(self.name, f"shape is {shown(given.shape)}, expected {expected}")
        if prod(given.shape) > self.most:
            raise wrong(self.name, f"shape is {shown(given.shape)}, expected at most {self.most:,} elements")
        if isinstance(given.data, bytes | memoryview):
            return from_raw(self.name, given.datatype, given.shape, memoryview(given.data))
        return from_values(self.name, given.datatype, given.shape, given.data)


def wrong(tensor: str, message: str) -> InvalidRequest:
    return InvalidRequest(FieldError(tensor, message))


def shown(shape: Sequence[int]) -> str:
    return str(list(shape[:8])) + (f" and {len(shape) - 8} more" if len(shape) > 8 else "")


def from_raw(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Array:
    if datatype == "BYTES":
        return strings(name, shape, data)
    kind = np.dtype(NUMBERS[datatype])
    if len(data) != (size := prod(shape) * kind.itemsize):
        raise wrong(name, f"has {len(data):,} bytes, but {datatype} of shape {shown(shape)} is {size:,}")
    return np.array(np.frombuffer(data, kind)).reshape(shape)  # a copy: what came may lie anywhere, and be read-only


def strings(name: str, shape: Sequence[int], data: memoryview) -> Array:
    count, at, whole = prod(shape), 0, bytes(data)
    if len(whole) < count * LENGTH:
        raise wrong(name, f"has {len(whole):,} bytes, fewer than the lengths of its {count:,} elements take")
    found: list[str] = []
    try:
        for _ in range(count):
            (size,) = UNPACK(whole, at)
            at += LENGTH + size
            found.append(whole[at - size : at].decode("utf-8"))
    except struct.error as error:
        long = len(found) - (at > len(whole))  # or its length is cut off
        raise wrong(name, f"element {long} is longer than what is left of its {len(whole):,} bytes") from error
    except UnicodeDecodeError as error:
        raise wrong(name, f"element {len(found)} is not UTF-8") from error
    if at > len(whole):
        raise wrong(name, f"element {count - 1} is longer than what is left of its {len(whole):,} bytes")
    if at != len(whole):
        raise wrong(name, f"has {len(whole) - at:,} bytes behind its {count:,} elements")
    return objects(found, shape)


def objects(values: list[str], shape: Sequence[int]) -> Array:
    found = np.empty(len(values), object)
    found[:] = values
    return found.reshape(shape)


def text(name: str, at: int, one: str | bytes) -> str:
    if isinstance(one, str):
        return one
    try:
        return one.decode("utf-8")
    except UnicodeDecodeError as error:
        raise wrong(name, f"element {at} is not UTF-8") from error


def from_values(name: str, datatype: str, shape: Sequence[int], data: Sequence[Any]) -> Array:
    values = flat(name, shape, data)
    kinds, expected = KINDS[datatype]
    if not set(map(type, values)) <= kinds:
        at, one = next((i, one) for i, one in enumerate(values) if type(one) not in kinds)
        raise wrong(name, f"element {at} is {type(one).__name__}, expected {expected}")
    if datatype == "BYTES":
        return objects([text(name, i, one) for i, one in enumerate(values)], shape)
    try:
        with np.errstate(over="ignore"):  # becomes infinite, which is refused where values are
            return (
                np.array(values, np.int64 if datatype == "INT64" else np.float64)
                .astype(NUMBERS[datatype])
                .reshape(shape)
            )
    except OverflowError as error:
        raise wrong(name, f"has a number that is no {datatype}") from error


def flat(name: str, shape: Sequence[int], data: Sequence[Any]) -> list[Any]:
    """The values, row-major, of what is flat already or nested as the shape says."""
    if len(shape) > 1 and data and isinstance(data[0], list):
        if len(data) != shape[0] or not all(isinstance(one, list) and len(one) == prod(shape[1:]) for one in data):
            raise wrong(name, f"data is nested in another way than shape {shown(shape)} says")
        return [value for one in data for value in flat(name, shape[1:], one)]
    if len(data) != prod(shape):
        raise wrong(name, f"has {len(data):,} elements, but shape {shown(shape)} is {prod(shape):,}")
    return list(data)
