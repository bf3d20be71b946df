"""Changes of items in a loaded bundle: between two batches, on the thread that answers, without a retrain.

Rows are only ever added, so a row means the same item for as long as the bundle is loaded. An item that the model has
not learned stands at its category's centroid, the cold start that needs nothing but its category: Andrew I. Schein et
al., "Methods and metrics for cold-start recommendations", SIGIR 2002, section 3, averages over known items likewise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ranking.bundle import Bundle
from ranking.centres import Centres
from ranking.encoding import Encoder
from ranking.items import NEVER
from ranking.room import longer
from ranking.values import number

Fact = str | float | bool | None
Change = tuple[str, Mapping[str, Fact]]
"""An item's id, and what is new about it: title, category, price, in_stock, removed, columns of the item schema."""


@dataclass(slots=True)
class Removed:
    """An item that was taken out: its row, and its stock as it was last said."""

    row: int
    in_stock: bool


class LiveItems:
    """Applies changes to one bundle's item table. For the engine's thread only, but for `knows`.

    What a worker knows must not depend on when it started: changes one by one, and what they say together, end alike.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        schema = bundle.manifest.item
        self.encoder = Encoder(schema.dense, schema.categorical)
        self.dense = {one.source: place for place, one in enumerate(schema.dense)}
        self.categorical = {one.source: place for place, one in enumerate(schema.categorical)}
        items = bundle.items
        self.codes = {name: code for code, name in enumerate(items.categories)}
        self.centres = Centres(
            items.embeddings[: items.learned], items.category[: items.learned], len(items.categories)
        )
        self.removed: dict[str, Removed] = {}
        self.waiting: dict[str, dict[str, Fact]] = {}  # of items that have no row: untitled, or removed before we knew

    def knows(self, name: str) -> bool:
        """Whether there is, or was, such an item. From any thread."""
        there = name in self.bundle.items.row_of or name in self.removed
        return there or bool(self.waiting.get(name, {}).get("title"))

    def apply(self, changes: Sequence[Change]) -> list[int]:
        """Returns the rows that are new, in order. An item gets one once it has a title and is not removed."""
        ready: dict[str, None] = {}
        for name, facts in changes:
            self.bundle.changed_at = max(self.bundle.changed_at, number(facts.get("at")))  # NaN is no more than any
            if name in self.removed:
                self.set(name, self.removed[name].row, facts)
            elif (row := self.bundle.items.row_of.get(name)) is not None:
                self.set(name, row, facts)
            else:
                known = self.waiting.setdefault(name, {})
                known.update(facts)
                if known.get("title") and not known.get("removed"):
                    ready[name] = None
                else:
                    ready.pop(name, None)
        rows = self.grow(list(ready)) if ready else []
        for name, row in zip(ready, rows, strict=True):
            self.set(name, row, self.waiting.pop(name))
            self.place(row)
        return rows

    def set(self, name: str, row: int, facts: Mapping[str, Fact]) -> None:
        """Takes in what is said of an item that has a row, be it removed."""
        items = self.bundle.items
        if facts.get("removed"):
            self.take_out(name)
        elif "removed" in facts:
            self.bring_back(name)
        for fact, value in facts.items():
            if fact == "title":
                items.titles[row] = str(value)
            elif fact == "in_stock" and name in self.removed:
                self.removed[name].in_stock = bool(value)
            elif fact == "in_stock":
                items.in_stock[row] = bool(value)
            elif fact == "price":
                items.price[row] = np.nan if value is None else number(value)
            elif fact == "category":
                self.categorize(row, self.category(str(value)))
            if fact in self.dense:
                items.dense[row, self.dense[fact]] = self.encode_dense(fact, value)
            if fact in self.categorical:
                codes = self.encoder.codes[self.categorical[fact]]
                items.categorical[row, self.categorical[fact]] = codes.get("" if value is None else str(value), 0)

    def take_out(self, name: str) -> None:
        """No source can propose it any more, and no request name it."""
        items = self.bundle.items
        if (row := items.row_of.pop(name, None)) is not None:
            self.removed[name] = Removed(row, bool(items.in_stock[row]))
            items.in_stock[row] = False

    def bring_back(self, name: str) -> None:
        items = self.bundle.items
        if (one := self.removed.pop(name, None)) is not None:
            items.row_of[name] = one.row
            items.in_stock[one.row] = one.in_stock

    def category(self, name: str) -> int:
        """The category's code, a new one where it is new."""
        if name not in self.codes:
            self.codes[name] = len(self.codes)
            self.bundle.items.categories.append(name)
        return self.codes[name]

    def categorize(self, row: int, code: int) -> None:
        items = self.bundle.items
        if row < items.learned:
            self.centres.move(items.embeddings[row], int(items.category[row]), code)
        items.category[row] = code

    def encode_dense(self, name: str, value: Fact) -> np.float32:
        place = self.dense[name]
        raw = self.encoder.numbers([[value if one == place else None] for one in range(len(self.dense))])
        return np.float32(self.encoder.dense(raw)[0, place])

    def grow(self, added: Sequence[str]) -> list[int]:
        """Rows for new items: nothing is known of them yet."""
        bundle, items, count = self.bundle, self.bundle.items, len(added)
        first = len(items)
        blank = self.encoder.dense(np.full((1, len(self.dense)), np.nan))
        bundle.items = replace(
            items,
            category=longer(items.category, count, self.category("")),
            price=longer(items.price, count, np.nan),
            in_stock=longer(items.in_stock, count, True),
            popularity=longer(items.popularity, count, 0),
            popular=longer(items.popular, count, 0),
            dense=longer(items.dense, count, blank),
            categorical=longer(items.categorical, count, 0),
            embeddings=longer(items.embeddings, count, 0),
            stats_at=longer(items.stats_at, count, NEVER),
        )
        bundle.items.popular[first:] = range(first, first + count)
        bundle.neighbors = longer(bundle.neighbors, count, -1)
        bundle.neighbor_scores = longer(bundle.neighbor_scores, count, 0)
        for row, name in enumerate(added, first):
            items.ids.append(name)
            items.titles.append(name)
            items.row_of[name] = row
        return list(range(first, first + count))

    def place(self, row: int) -> None:
        """Puts a new item where the learned ones of its category are; where there are none, where all are."""
        items = self.bundle.items
        items.embeddings[row] = self.centres.of(int(items.category[row]))
