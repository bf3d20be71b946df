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

ACTIVITY, RECENT, STATS = "user_activity", "user_recent", "item_stats"
STAMPS = (timestamp_field(ACTIVITY), timestamp_field(RECENT))
ITEM_PRICE = feature_field(STATS, "price")
COUNTS = (
    *((f"events_{window}", b"0", WINDOWS[window]) for window in ("24h", "7d", "30d")),
    *((f"purchases_{window}", b"1", WINDOWS[window]) for window in ("7d", "30d")),
)
POPULARITY_HEAD = (
    timestamp_field(STATS),
    *(part for name, which, size in COUNTS for part in (feature_field(STATS, name), which, b"%d" % size)),
)
"""What the script POPULARITY is told of the view before the items."""


def is_older(stamp: bytes | None, at: int) -> bool:
    """Whether a view's row may be replaced by one of the time `at`: there is none, it is not newer, or unreadable."""
    try:
        return stamp is None or round(decode_timestamp(stamp) * 1e6) <= at
    except ValueError:
        return True


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


def features(view: str, state: UserState) -> dict[bytes, bytes]:
    """The view's values by hash field, in Feast's layout."""
    if view == RECENT:
        return {feature_field(view, name): encode_strings(items) for name, items in state.recent().items()}
    return {
        feature_field(view, name): encode_float32(value) if isinstance(value, float) else encode_int64(value)
        for name, value in state.activity().items()
    }
