"""What can be answered without the engine: popular items, or a caller's own in the caller's order.

It costs a few dozen microseconds and asks for no thread, so it is there when nothing else is.
"""

from __future__ import annotations

import numpy as np

from ranking.batch import Allowed, Answer, Query, Ranked, Rows
from ranking.filters.eligible import as_price
from ranking.items import ItemTable

BLOCK = 1024
"""Popular items that are looked at in one go."""


def without_engine(items: ItemTable, query: Query) -> Answer:
    """The answer to a query whose `sources` names one source; the score falls from 1 by rank."""
    rows = popular(items, query) if query.rank is None else items.rows(query.rank)
    scores = (1 - np.arange(len(rows)) / max(len(rows), 1)).astype(np.float32)
    return Answer(Ranked(rows, scores, scores, np.zeros(len(rows), np.uint8)), 0.0, {}, 0)


def popular(items: ItemTable, query: Query) -> Rows:
    """The most popular `keep` items that the query may be answered with: int64[n]."""
    excluded = items.rows([*query.exclude, query.item_id] if query.item_id else query.exclude)
    wanted = max(query.keep, query.count)
    found: list[Rows] = []
    for start in range(0, len(items.popular), BLOCK):
        rows = items.popular[start : start + BLOCK]
        passing = rows[items.in_stock[rows] & may_be(items, rows, query.allowed)]
        found.append(passing[~np.isin(passing, excluded)])
        if sum(map(len, found)) >= wanted:
            break
    return np.concatenate(found)[:wanted] if found else np.zeros(0, np.int64)


def may_be(items: ItemTable, rows: Rows, allowed: Allowed) -> np.ndarray:
    """bool[n]: which of the rows satisfy every condition; an item without a price is outside every range."""
    passing = np.ones(len(rows), bool)
    if allowed.categories is not None:
        codes = [code for code, name in enumerate(items.categories) if name in allowed.categories]
        passing &= np.isin(items.category[rows], codes)
    if allowed.price_min is not None:
        passing &= items.price[rows] >= as_price(allowed.price_min)
    if allowed.price_max is not None:
        passing &= items.price[rows] <= as_price(allowed.price_max)
    return passing
