"""The views that live events change, as values and fields of Feast's hashes. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from features.events import Event
from features.functions import WINDOWS
from features.layout import (
    decode_timestamp,
    decode_value,
    encode_float32,
    encode_int64,
    encode_strings,
    feature_field,
    timestamp_field,
)
from features.userstate import UserState

Feature = int | float | list[str]

ACTIVITY, RECENT, STATS = "user_activity", "user_recent", "item_stats"
STAMPS = (timestamp_field(ACTIVITY), timestamp_field(RECENT))
ITEM_PRICE = feature_field(STATS, "price")
COUNTS = (
    *((f"events_{window}", b"0", WINDOWS[window]) for window in ("30d", "7d", "24h")),
    *((f"purchases_{window}", b"1", WINDOWS[window]) for window in ("30d", "7d")),
)
POPULARITY_HEAD = (
    timestamp_field(STATS),
    *(part for name, which, size in COUNTS for part in (feature_field(STATS, name), which, b"%d" % size)),
)
"""What the script POPULARITY is told of the view before the items: each kind of count from its widest window down."""


def time_of(stamp: bytes | None) -> int:
    """A view's event time in microseconds; 0, older than any event, where there is none or it cannot be read."""
    try:
        return 0 if stamp is None else round(decode_timestamp(stamp) * 1e6)
    except ValueError:
        return 0


def price(raw: bytes) -> float:
    """A stored price; nothing where it cannot be read or is none."""
    try:
        found = decode_value(raw)
    except ValueError:
        return 0.0
    return float(found) if isinstance(found, int | float) else 0.0


def paid(event: Event, prices: Mapping[str, float]) -> float:
    """What a purchase paid: what it says, else the item's price; nothing for other events."""
    if event.kind != "purchase":
        return 0.0
    return prices.get(event.item_id, 0.0) if event.value is None else event.value


def features(view: str, state: UserState) -> dict[str, Feature]:
    """The view's values by feature."""
    return {**state.recent()} if view == RECENT else {**state.activity()}


def encoded(view: str, name: str, value: Feature) -> tuple[bytes, bytes]:
    """A feature as field and value of Feast's hash."""
    if isinstance(value, list):
        return feature_field(view, name), encode_strings(value)
    return feature_field(view, name), encode_float32(value) if isinstance(value, float) else encode_int64(value)
