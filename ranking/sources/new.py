"""What came after training: the new items nearest to the user's vector.

A new item stands at its category's centroid, and among thousands of learned items hundreds are nearer to any shopper
than a centroid is. So those that came later are looked for by themselves, and the ranker weighs them beside the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranking.bundle import Bundle
from ranking.index import Index
from ranking.scanned import exact_search
from ranking.sources.base import NOTHING, Batch, Found, found


class New:
    name = "new"

    def retrieve(self, bundle: Bundle, index: Index, batch: Batch, which: Sequence[int], k: int) -> list[Found]:
        items = bundle.items
        if len(items) == items.learned:
            return [NOTHING] * len(which)
        came = items.learned + np.flatnonzero(items.in_stock[items.learned :])[::-1]  # of those alike the newest first
        results = []
        for i in which:
            mask = batch.allowed[i]
            rows = came if mask is None else came[mask[came]]
            scores, best = exact_search(items.embeddings, rows, batch.users[i : i + 1], min(k, len(rows)))
            results.append(found(scores[0], best[0]))
        return results
