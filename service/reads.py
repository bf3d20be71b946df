"""What is read for the versions that are loaded: of shoppers, and of items."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Protocol

from features.online import ReadPlan
from ranking.schema import ItemSchema
from service.fit import Fit, together


class Planned(Protocol):
    plan: ReadPlan


class Door(Protocol):
    def read_by(self, schemas: Sequence[ItemSchema]) -> None: ...


class Viewed(Protocol):
    item_view: str | None


class Reads:
    """Keeps who reads and who takes in at what the loaded versions need, each version's need since it was loaded.

    `reader` reads shoppers for the models, `insight` all that Feast has of them, `items` takes in changes of items and
    `replies` names the view of items.
    """

    def __init__(self, reader: Planned, insight: Planned, items: Door, replies: Viewed) -> None:
        self.reader, self.insight, self.items, self.replies = reader, insight, items, replies
        self.needs: dict[str, Fit] = {}

    def fits(self, one: Fit) -> None:
        """Raises FeaturesError for what cannot be read together with what is loaded."""
        together(self.reader.plan, one.plan)

    def take_in(self, keys: Sequence[str], need: Fit, schemas: Sequence[ItemSchema]) -> None:
        """From now on what these versions need is read, too. `schemas` are those of all versions."""
        self.needs |= dict.fromkeys(keys, need)
        self.replies.item_view = self.replies.item_view or need.item_view
        self.settle(schemas)

    def let_go(self, keys: Sequence[str], schemas: Sequence[ItemSchema]) -> None:
        """What only these versions needed is read no more."""
        self.needs = {key: need for key, need in self.needs.items() if key not in keys}
        self.settle(schemas)

    def settle(self, schemas: Sequence[ItemSchema]) -> None:
        needs = list({id(need): need for need in self.needs.values()}.values())
        self.reader.plan = reduce(together, (need.plan for need in needs))
        self.insight.plan = reduce(together, (need.everything for need in needs))
        self.items.read_by(schemas)
