"""Which items a query may be answered with: in stock, not excluded, and within its filter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ranking.batch import Query, Rows
from ranking.items import ItemTable

MANY_EXCLUDED = 100
"""Beyond so many exclusions the search itself leaves them out; up to it, a few extra candidates are fetched instead."""

MOSTLY_IN_STOCK = 0.8


class Eligible:
    """The filter of one item table. Prices that are unknown fail any price condition."""

    def __init__(self, items: ItemTable) -> None:
        self.codes: dict[str, int] = {}
        self.look_again(items)

    def look_again(self, items: ItemTable) -> None:
        """Takes the item table as it is now. Categories are only ever added."""
        self.items = items
        known = len(self.codes)
        self.codes |= {name: code for code, name in enumerate(items.categories[known:], known)}
        self.out_of_stock = 1 - np.count_nonzero(items.in_stock) / len(items) if len(items) else 0.0
        self.mostly_in_stock = 1 - self.out_of_stock >= MOSTLY_IN_STOCK

    def mask(self, query: Query, excluded: Rows) -> npt.NDArray[np.bool_] | None:
        """bool[N] when retrieval itself must be restricted; None when dropping a few candidates afterwards will do."""
        if query.allowed.everything and self.mostly_in_stock and len(excluded) <= MANY_EXCLUDED:
            return None
        return self.exact_mask(query, excluded)

    def exact_mask(self, query: Query, excluded: Rows) -> npt.NDArray[np.bool_]:
        """bool[N]: every item that this query may be answered with, and no other."""
        passing = self.items.in_stock.copy()
        if query.allowed.categories is not None:
            wanted = np.zeros(len(self.items.categories), bool)
            wanted[[self.codes[name] for name in query.allowed.categories if name in self.codes]] = True
            passing &= wanted[self.items.category]
        if query.allowed.price_min is not None:
            passing &= self.items.price >= as_price(query.allowed.price_min)
        if query.allowed.price_max is not None:
            passing &= self.items.price <= as_price(query.allowed.price_max)
        passing[excluded] = False
        return passing

    def spare(self, quota: int) -> int:
        """How many more to fetch than wanted, because some will be out of stock."""
        return int(quota * self.out_of_stock * 1.5) + 1


def as_price(bound: float) -> np.float32:
    """A bound in the item table's own type; one beyond it is its largest."""
    largest = float(np.finfo(np.float32).max)
    return np.float32(min(max(bound, -largest), largest))
