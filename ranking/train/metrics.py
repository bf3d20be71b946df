"""How good a ranking of the whole catalogue is: Recall@k and NDCG@k, averaged over shoppers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def hits(ranked: Ints, truth: Sequence[Ints]) -> npt.NDArray[np.bool_]:
    """bool[n, K]: which of each shopper's ranked rows int64[n, K] (-1 empty) are among their held-out ones."""
    return np.stack([np.isin(rows, wanted[wanted >= 0]) for rows, wanted in zip(ranked, truth, strict=True)])


def recall(hit: npt.NDArray[np.bool_], held_out: Ints, k: int) -> Floats:
    """float64[n]: how many of the held_out[n] items are among the first k."""
    share: Floats = hit[:, :k].sum(1) / held_out
    return share


def ndcg(hit: npt.NDArray[np.bool_], held_out: Ints, k: int) -> Floats:
    """float64[n]: each hit at place i counts 1 / log2(i + 1), over the most that held_out[n] items could make.

    Kalervo Järvelin, Jaana Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002, binary gain.
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(held_out, k)]
    gained: Floats = (hit[:, :k] * discount[: hit.shape[1]]).sum(1) / ideal
    return gained
