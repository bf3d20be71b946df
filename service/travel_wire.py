"""What `GET /v1/recommendations/{id}` answers: an answer as it was logged, beside the same made now."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from service.wire import Model


class PlacedItem(Struct, frozen=True):
    """One item of a list; `place` counts from 1."""

    place: int
    item_id: str
    score: float
    source: str


class Listing(Struct, frozen=True):
    """A list, best first, the model that made it, and what it had to do without."""

    model: Model
    degraded: list[str]
    items: list[PlacedItem]


class ChangedFeature(Struct, frozen=True):
    """A feature's value as it was logged, and what was put in its place; null is missing."""

    feature: str
    before: Any
    after: Any


class ItemMove(Struct, frozen=True):
    """Where an item stood and where it stands now; null where it does not. Scores of two versions do not compare."""

    item_id: str
    place_before: int | None
    place_after: int | None
    score_change: float | None


class Because(Struct, frozen=True):
    """Something that is not as it was, though nobody asked for it to be otherwise: it may be why the lists differ."""

    reason: Literal["items", "counts", "sources", "degraded", "settings", "features", "batch"]
    detail: str


class TimeTravel(Struct, frozen=True):
    """A logged answer, and what the same features give now. `identical`: the same items in the same order, with scores
    that are equal bit for bit. `moves` has each item of either list; `because` is empty where they are identical."""

    recommendation_id: str
    time: datetime
    endpoint: Literal["recommend", "rank"]
    placement: str
    logged: Listing
    now: Listing
    changed: list[ChangedFeature]
    identical: bool
    moves: list[ItemMove]
    because: list[Because]
