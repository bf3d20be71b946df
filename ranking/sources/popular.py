"""What most shoppers choose: the answer when nothing is known of this one. The score falls from 1 by rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranking.bundle import Bundle
from ranking.index import Index
from ranking.sources.base import Batch, Found


class Popular:
    name = "popular"

    def retrieve(self, bundle: Bundle, index: Index, batch: Batch, which: Sequence[int], k: int) -> list[Found]:
        order = bundle.items.popular
        results = []
        for i in which:
            mask = batch.allowed[i]
            place = np.arange(min(k, len(order))) if mask is None else np.flatnonzero(mask[order])[:k]
            results.append(((1 - place / len(order)).astype(np.float32), order[place]))
        return results
