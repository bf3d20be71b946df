"""Items that others touched together with this shopper's recent ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranking.bundle import Bundle
from ranking.index import Index
from ranking.sources.base import Batch, Found


class Covisit:
    name = "covisit"

    def retrieve(self, bundle: Bundle, index: Index, batch: Batch, which: Sequence[int], k: int) -> list[Found]:
        results = []
        for i in which:
            rows, sums = batch.covisited(i)
            mask = batch.allowed[i]
            if mask is not None:
                passing = mask[rows]
                rows, sums = rows[passing], sums[passing]
            best = np.argsort(-sums, kind="stable")[:k]
            results.append((sums[best], rows[best]))
        return results
