"""Item changes as they are sent: each row read on its own, so that a bad one loses nothing of the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import UNSET

from features.catalogue import Fact, ItemChange
from features.errors import FeatureStoreError
from ranking.schema import ItemSchema
from service.errors import FieldError, InvalidRequest, MalformedBody, NotStored
from service.http.strict import StrictDecoder, rows_of
from service.wire import ItemRow, ItemsAccepted, Rejected

MOST_ITEMS = 1_000
OWN = ("title", "category", "price", "in_stock", "removed")
COUNTED = ("events_", "purchases_")
"""What columns begin with that are counted from events, and that nobody may say."""


class Publisher(Protocol):
    async def publish(self, changes: Sequence[ItemChange]) -> None: ...


class ItemDoor:
    """Takes in item changes. `knows` says whether there is, or was, an item of that id, `schemas` what each model reads
    of an item."""

    def __init__(self, publisher: Publisher, knows: Callable[[str], bool], schemas: Sequence[ItemSchema]) -> None:
        self.publisher, self.knows = publisher, knows
        self.decoder = StrictDecoder(ItemRow)
        self.read_by(schemas)

    def read_by(self, schemas: Sequence[ItemSchema]) -> None:
        """Takes in what the models read of an item now."""
        numbers = {one.source for schema in schemas for one in schema.dense}
        words = {one.source for schema in schemas for one in schema.categorical}
        self.attributes: Mapping[str, type] = {
            name: float if name in numbers else str
            for name in sorted(numbers | words)
            if name not in OWN and not name.startswith(COUNTED)
        }

    async def one_body(self, body: bytes) -> ItemsAccepted:
        """A JSON body `{"items": [...]}`. Raises MalformedBody or InvalidRequest for what is none as a whole, and
        NotStored when the store does not take the changes."""
        new = set[str]()
        changes, rejected = [], []
        for index, row in enumerate(rows_of(body, "items", MOST_ITEMS)):
            try:
                changes.append(self.change(row, new))
            except (MalformedBody, InvalidRequest) as error:
                rejected.append(Rejected(index, str(error)))
        try:
            await self.publisher.publish(changes)
        except FeatureStoreError as error:
            raise NotStored(f"{error}. Send all again: a change that is in does no harm") from error
        return ItemsAccepted(len(changes), rejected, len(rejected))

    def change(self, row: bytes, new: set[str]) -> ItemChange:
        one: ItemRow = self.decoder.decode(row)
        said = {name: getattr(one, name) for name in OWN}
        facts: dict[str, Fact] = {name: value for name, value in said.items() if value is not UNSET}
        missing = [name for name in ("title", "category") if name not in facts]
        if not missing:  # an item in full is there, also where it was removed: by whom, this worker need not know yet
            facts.setdefault("removed", False)
            new.add(one.item_id)
        elif not facts.get("removed") and one.item_id not in new and not self.knows(one.item_id):
            raise InvalidRequest(*(FieldError(name, "Missing, and the item is a new one") for name in missing))
        for name, value in one.attributes.items():
            if name not in self.attributes:
                there = ", ".join(self.attributes) or "none"
                raise InvalidRequest(FieldError(f"attributes.{name}", f"no model reads it; those read are {there}"))
            if value is not None and isinstance(value, str) != (self.attributes[name] is str):
                wanted = "a string" if self.attributes[name] is str else "a number"
                raise InvalidRequest(FieldError(f"attributes.{name}", f"takes {wanted}, not {value!r}"))
            facts[name] = value
        return ItemChange(one.item_id, facts)
