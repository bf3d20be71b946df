"""Arrays that go to a device, or come from it, in one copy."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy.typing as npt
import torch

ALIGN = 16
Fields = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


class Block:
    """Arrays of the given types and shapes, side by side in one piece of memory on the host, and its twin on the
    device. `arrays` are those on the host (numpy), `tensors` their twins; neither is ever replaced. On a GPU's host the
    memory is pinned, so that a copy needs no second one and does not hold up the thread."""

    def __init__(self, fields: Fields, device: torch.device) -> None:
        self.cuda, places, size = device.type == "cuda", dict[str, int](), 0
        for name, (kind, shape) in fields.items():
            places[name] = size
            size += -(-prod(shape) * kind.itemsize // ALIGN) * ALIGN
        self.host = torch.zeros(size, dtype=torch.uint8, pin_memory=self.cuda)
        self.there = torch.zeros(size, dtype=torch.uint8, device=device)
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        for name, (kind, shape) in fields.items():
            part = slice(places[name], places[name] + prod(shape) * kind.itemsize)
            self.arrays[name] = self.host[part].view(kind).view(shape).numpy()
            self.tensors[name] = self.there[part].view(kind).view(shape)

    def send(self) -> None:
        """To the device, on the current stream."""
        self.there.copy_(self.host, non_blocking=self.cuda)

    def fetch(self) -> None:
        """From the device; returns when it is here."""
        self.host.copy_(self.there, non_blocking=self.cuda)
        if self.cuda:
            torch.cuda.current_stream().synchronize()
