"""Names that two rooms must agree on, though neither may know the other."""

from __future__ import annotations

import msgspec

from features.shop import ITEMS, RESERVED
from load.sources.requests import events, recommendation
from ranking.items import COLUMNS
from ranking.train.data import POPULARITY
from service.wire import EventsRequest, RecommendRequest


def test_no_column_of_a_shop_may_have_a_name_that_training_or_a_bundle_adds() -> None:
    assert set(RESERVED) == {*POPULARITY, *COLUMNS} - set(ITEMS.names)


def test_what_a_traffic_log_is_made_of_is_what_the_service_takes() -> None:
    """Every field of the requests that load makes is one of the service's, and none that it needs is missing."""
    asked = recommendation(0, "u1", "home", 20, "i1")
    row = {"event_id": "1-1", "user_id": "u1", "item_id": "i1", "type": "purchase", "session_id": "s1", "value": 7.0}
    (told,) = events(0, [row])
    assert (asked.path, told.path) == ("/v1/recommendations", "/v1/events")
    one = msgspec.json.decode(asked.body or "", type=RecommendRequest)
    assert (one.user_id, one.placement, one.count, one.item_id) == ("u1", "home", 20, "i1")
    (event,) = msgspec.json.decode(told.body or "", type=EventsRequest).events
    assert msgspec.to_builtins(event) == {**row, "timestamp": None}
