"""What half precision alone would answer, beside float32: how much of it is the same, and in the same order."""

from __future__ import annotations

import numpy as np
import torch

from ranking.resident.search import Nearest


@torch.inference_mode()
def agreement(nearest: Nearest, queries: torch.Tensor, k: int) -> dict[str, float]:
    """Of queries f32[B, E]: `recall`, the share of float32's k best that the shorter type's k best hold; `kendall`,
    the rank correlation (tau) over those that both hold; `decided`, the share of queries of which `Nearest.top`, which
    looks at more in float32, is sure.

    Maurice G. Kendall, "A new measure of rank correlation", Biometrika 1938.
    """
    k = min(k, nearest.size)
    _, exact = nearest.top_in_float32(queries, k)
    units = queries / queries.abs().amax(1, keepdim=True)
    table = nearest.vectors if nearest.dtype is torch.float32 else nearest.coarse
    _, near = nearest.best(units.to(nearest.dtype), table, nearest.open, k, None)
    recalls, taus = [], []
    for mine, theirs in zip(near.cpu().numpy(), exact.cpu().numpy(), strict=True):
        place = {row: at for at, row in enumerate(theirs.tolist())}
        places = np.array([place[row] for row in mine.tolist() if row in place])
        recalls.append(len(places) / k)
        pairs = len(places) * (len(places) - 1) / 2
        if pairs:
            taus.append(1 - 2 * int(np.triu(places[:, None] > places[None, :], 1).sum()) / pairs)
    _, _, sure = nearest.top(queries, k)
    return {
        "recall": float(np.mean(recalls)), "kendall": float(np.mean(taus or [1.0])),
        "decided": float(sure.float().mean()),
    }  # fmt: skip
