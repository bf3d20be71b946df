"""Items like the one in view: its co-visited neighbours, and the items nearest to its embedding.

The score is the inner product of the two (unit) embeddings plus the co-visitation score relative to the item's best
neighbour, so it lies in [-1, 2] and an item that is both alike and bought together comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranking.bundle import Bundle
from ranking.index import Index
from ranking.sources.base import NOTHING, Batch, Found, search


class Similar:
    name = "similar"

    def retrieve(self, bundle: Bundle, index: Index, batch: Batch, which: Sequence[int], k: int) -> list[Found]:
        results = [NOTHING] * len(which)
        anchors = [bundle.items.row_of.get(batch.queries[i].item_id or "", -1) for i in which]
        known = [place for place, row in enumerate(anchors) if row >= 0]
        if not known:
            return results
        vectors = np.ascontiguousarray(bundle.items.embeddings[[anchors[place] for place in known]])
        masks = [batch.allowed[which[place]] for place in known]
        probes = batch.probes([which[place] for place in known])
        for place, mask, near in zip(known, masks, search(index, vectors, masks, k + 1, probes), strict=True):
            results[place] = self._join(bundle, anchors[place], mask, near[1], k)
        return results

    def _join(self, bundle: Bundle, anchor: int, mask: object, near: np.ndarray, k: int) -> Found:
        neighbors, weights = bundle.neighbors[anchor].astype(np.int64), bundle.neighbor_scores[anchor]
        filled = neighbors >= 0
        if isinstance(mask, np.ndarray):
            filled &= mask[neighbors]
        neighbors, weights = neighbors[filled], weights[filled]
        rows = np.concatenate([neighbors, near[~np.isin(near, neighbors) & (near != anchor)]])
        scores = bundle.items.embeddings[rows] @ bundle.items.embeddings[anchor]
        if len(weights):
            scores[: len(weights)] += weights / max(float(bundle.neighbor_scores[anchor].max()), 1e-12)
        best = np.argsort(-scores, kind="stable")[:k]
        return scores[best].astype(np.float32), rows[best]
