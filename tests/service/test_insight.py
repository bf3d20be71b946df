"""What analysts may ask of a user's features."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from tests.service.conftest import Client
from tests.service.test_events import event, send


async def stored(client: Client, user: str) -> dict[str, Any]:
    status, text = await client.get(f"/v1/features/user/{user}")
    assert status == 200, text
    found: dict[str, Any] = msgspec.json.decode(text)
    return {**found, "views": {view["view"]: view for view in found["views"]}}


async def test_every_value_has_its_event_time_age_and_status(client: Client) -> None:
    """All views that Feast has of a user, also those that no model reads; equal to what an answer used."""
    found = await stored(client, "u4")
    answer = await client.recommend(user_id="u4", explain=True)
    assert set(found["views"]) == {"user_profile", "user_activity", "user_recent"}
    now = datetime.now(UTC)
    for name, view in found["views"].items():
        assert view["status"] == "present" == answer["features"][name]["status"]
        at = datetime.fromisoformat(view["event_time"])
        assert abs((now - at).total_seconds() - view["age_s"]) < 5
        for feature, value in view["features"].items():
            reference = f"{name}:{feature}"
            assert reference not in answer["inputs"] or answer["inputs"][reference] == value
    assert found["views"]["user_profile"]["max_age_s"] == 365 * 86400


async def test_an_unknown_user_has_no_rows_and_any_id_can_be_asked_about(client: Client) -> None:
    for user in ("nobody", "a%2Fb%20c", "%C3%A9%3F"):
        views = (await stored(client, user))["views"].values()
        assert {(view["status"], view["event_time"], str(view["features"])) for view in views} == {
            ("missing", None, "{}")
        }


async def test_an_events_time_is_the_event_time_of_its_features(client: Client) -> None:
    user, at = f"t-{time.time_ns()}", time.time() - 120.5
    token = (await send(client, event(user_id=user, timestamp=at)))["token"]
    await client.post("/v1/recommendations", {"user_id": user}, headers={"Endcap-After": token})
    view = (await stored(client, user))["views"]["user_activity"]
    assert abs(datetime.fromisoformat(view["event_time"]).timestamp() - at) < 1e-5
    assert 120 < view["age_s"] < 130 and view["features"]["views_1h"] == 1
