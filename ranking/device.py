"""Where a model runs, and the index that fits there."""

from __future__ import annotations

from typing import Literal

import torch

from ranking.bundle import Bundle
from ranking.errors import RankingError
from ranking.index import CpuIndex, GpuIndex, Index, gpu_available, read_index, scanned
from ranking.resident.search import TorchIndex

Device = Literal["auto", "cpu", "cuda"]


def choose(device: Device) -> torch.device:
    """The device to run on. Raises RankingError when `cuda` is asked for and there is none."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise RankingError("device is cuda, but torch finds no NVIDIA GPU here; use auto or cpu")
    return torch.device(device)


def place_index(bundle: Bundle, device: torch.device) -> Index:
    """On a CPU the bundle's index by our own scan, which then is the bundle's, or as faiss runs it; on a GPU faiss's,
    or an exact torch search where the faiss build has no GPU."""
    if device.type == "cpu":
        if isinstance(bundle.index, CpuIndex):
            bundle.index = scanned(bundle.index) or bundle.index
        return bundle.index
    if gpu_available():
        return GpuIndex(by_faiss(bundle), device.index or 0)
    return TorchIndex(bundle.items.embeddings, device)


def by_faiss(bundle: Bundle) -> CpuIndex:
    """The bundle's index as faiss has it, also where our own scan has its lists."""
    if isinstance(bundle.index, CpuIndex):
        return bundle.index
    return CpuIndex(read_index(bundle.path / "index.faiss"), bundle.items.embeddings, bundle.nprobe)
