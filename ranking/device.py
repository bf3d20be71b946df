"""Where a model runs, and the index that fits there."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from ranking.bundle import Bundle
from ranking.errors import RankingError
from ranking.index import CpuIndex, GpuIndex, Index, Mask, Rows, Scores, gpu_available, scanned

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
    if gpu_available() and isinstance(bundle.index, CpuIndex):
        return GpuIndex(bundle.index, device.index or 0)
    return TorchIndex(torch.from_numpy(np.ascontiguousarray(bundle.items.embeddings)).to(device))


class TorchIndex:
    """Exact search as one matrix product on any torch device. Scores are inner products."""

    def __init__(self, vectors: torch.Tensor) -> None:
        self.vectors, self.nprobe = vectors, 1  # float32[N, E]

    def search(self, queries: Scores, k: int, allowed: Mask | None = None, probe: float = 1.0) -> tuple[Scores, Rows]:
        device = self.vectors.device
        products = torch.from_numpy(np.ascontiguousarray(queries)).to(device) @ self.vectors.T
        if allowed is not None:
            products = products.masked_fill(~torch.from_numpy(allowed).to(device), -torch.inf)
        scores, rows = torch.topk(products, min(k, len(self.vectors)), dim=1)
        rows = rows.masked_fill(torch.isneginf(scores), -1)
        return scores.cpu().numpy(), rows.cpu().numpy()

    def add(self, vectors: Scores, count: int) -> None:
        new = torch.from_numpy(np.ascontiguousarray(vectors[-count:])).to(self.vectors.device)
        self.vectors = torch.cat([self.vectors, new])
