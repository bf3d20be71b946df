"""The service over real HTTP, on a real feature store: what storefronts may rely on."""

from __future__ import annotations

import gzip
import io
import json
import re
import time
from typing import Any

import jsonschema
import numpy as np
import pytest

from tests.service.conftest import Client, counted


def shopper_statuses(answer: dict[str, Any]) -> set[str]:
    """What was found of the views of shoppers."""
    return {view["status"] for name, view in answer["features"].items() if name.startswith("user_")}


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


async def test_a_known_shopper_gets_scored_items_with_their_sources(client: Client) -> None:
    answer = await client.recommend(user_id="u1", count=10)
    assert len(answer["items"]) == 10 and len(set(ids(answer))) == 10
    assert {item["source"] for item in answer["items"]} <= {"personal", "covisit", "popular"}
    assert answer["degraded"] == [] and answer["model"] == {"name": "default", "version": "2", "group": "default"}
    assert re.fullmatch("[0-9a-f]{32}", answer["recommendation_id"]) and answer["took_ms"] > 0
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


async def test_each_view_is_reported_with_status_and_age(client: Client) -> None:
    views = (await client.recommend(user_id="u1"))["features"]
    assert set(views) == {"user_profile", "user_activity", "user_recent", "item_stats"}
    assert {view["status"] for view in views.values()} == {"present"}
    assert all(0 <= view["age_s"] < 40 * 86400 for view in views.values())


async def test_the_items_view_is_as_old_as_the_oldest_statistics_behind_the_items_shown(client: Client) -> None:
    """Whoever asks and at whichever endpoint; the service sees no older ones that are not shown."""
    assert client.app.versions is not None
    items = client.app.versions.resolve("default").items
    now, answer = time.time(), await client.recommend(user_id="u1", count=5)
    shown = ids(answer)
    items.stats_at[:] = now - 100
    items.stats_at[items.rows(shown[2:3])] = now - 5000
    items.stats_at[items.rows(shown[4:5])] = np.inf  # none yet, which is not old
    for found, age in (
        (await client.recommend(user_id="u1", count=5), 5000),
        (await client.recommend(user_id="u1", count=5, exclude_item_ids=shown[2:3]), 100),
        (await client.post("/v1/rank", {"item_ids": shown[2:4]}), 5000),
        (await client.post("/v1/rank", {"item_ids": shown[3:]}), 100),
    ):
        view = found["features"]["item_stats"]
        assert view["status"] == "present" and age <= view["age_s"] < age + 20
    for wanted, status in ((shown[4:5], "missing"), (["nothing"], "not_read")):
        found = await client.post("/v1/rank", {"item_ids": wanted})
        assert found["features"]["item_stats"] == {"status": status, "age_s": None}


async def test_server_timing_has_every_stage(client: Client) -> None:
    await client.recommend(user_id="u1")
    stages = [part.split(";dur=")[0] for part in client.headers["Server-Timing"].split(", ")]
    expected = ["decode", "features", "engine", "queue", "encode", "filter", "retrieve", "score", "select", "rules"]
    assert stages == [*expected, "encode_json", "total"]


async def test_an_unknown_shopper_gets_popular_items_and_is_told(client: Client) -> None:
    answer = await client.recommend(user_id="nobody", count=5)
    assert {item["source"] for item in answer["items"]} == {"popular"} and answer["degraded"] == ["user"]
    assert shopper_statuses(answer) == {"missing"}
    assert ids(answer) == ids(await client.recommend(placement="popular", count=5))


async def test_an_anonymous_shopper_gets_popular_items(client: Client) -> None:
    answer = await client.recommend(count=5)
    assert {item["source"] for item in answer["items"]} == {"popular"} and len(answer["items"]) == 5
    assert shopper_statuses(answer) == {"not_read"}


async def test_an_anonymous_session_is_enough_to_be_personal(client: Client) -> None:
    answer = await client.recommend(session={"item_ids": ["i00003", "i00009"]}, count=20)
    assert "session" in {item["source"] for item in answer["items"]} and answer["degraded"] == []
    other = await client.recommend(session={"item_ids": ["i00100"]}, count=20)
    assert ids(answer) != ids(other)


async def test_a_session_of_unknown_items_is_no_session(client: Client) -> None:
    answer = await client.recommend(session={"item_ids": ["gone"]}, user_id="nobody", count=5)
    assert {item["source"] for item in answer["items"]} == {"popular"} and answer["degraded"] == ["user"]


async def test_a_session_changes_what_a_known_shopper_sees(client: Client) -> None:
    without = await client.recommend(user_id="u1")
    with_session = await client.recommend(user_id="u1", session={"item_ids": ["i00042", "i00043"]})
    assert ids(without) != ids(with_session)


async def test_out_of_stock_excluded_filtered_and_bought_items_never_appear(client: Client) -> None:
    versions = client.app.versions
    assert versions is not None
    items = versions.resolve("default").items
    everything = await client.recommend(user_id="u1", count=500, explain=True)
    bought = everything["inputs"]["user_recent:purchased_item_ids"]
    shown = set(ids(everything))
    assert bought and not shown & set(bought)
    assert shown == {one for row, one in enumerate(items.ids) if items.in_stock[row]} - set(bought)
    assert everything["degraded"] == ["count"]
    excluded = ids(everything)[:50]
    wanted = {"category": [items.categories[0], items.categories[1]], "price": {"min": 5, "max": 40}}
    answer = await client.recommend(user_id="u1", count=10, exclude_item_ids=excluded, filter=wanted, explain=True)
    assert not set(ids(answer)) & set(excluded)
    for item in answer["items"]:
        assert item["explain"]["category"] in wanted["category"] and 5 <= item["explain"]["price"] <= 40


async def test_a_category_cap_holds_until_it_would_leave_the_count_unfilled(client: Client) -> None:
    """The template caps home at 6 of a category; five categories fill 30, and more come from what was passed over."""
    for count, most in ((20, 6), (30, 6), (60, 60)):
        answer = await client.recommend(user_id="u1", count=count, explain=True)
        assert len(answer["items"]) == count
        categories = [item["explain"]["category"] for item in answer["items"]]
        assert max(categories.count(one) for one in categories) <= most


async def test_similar_needs_an_item_and_leaves_it_out(client: Client) -> None:
    problem = await client.recommend(422, placement="similar")
    assert problem["errors"][0]["path"] == "item_id"
    answer = await client.recommend(placement="similar", item_id="i00011", count=10)
    assert "i00011" not in ids(answer) and {item["source"] for item in answer["items"]} == {"similar"}


async def test_the_item_in_view_is_never_recommended_beside_itself(client: Client) -> None:
    first = ids(await client.recommend(user_id="u1", count=5))[0]
    assert first not in ids(await client.recommend(user_id="u1", count=5, item_id=first))


async def test_similar_to_an_unknown_item_is_popular_and_says_so(client: Client) -> None:
    answer = await client.recommend(placement="similar", item_id="gone", count=5)
    assert answer["degraded"] == ["item"] and {item["source"] for item in answer["items"]} == {"popular"}


async def test_a_version_can_be_insisted_on_and_an_unknown_one_is_404(client: Client) -> None:
    first = await client.recommend(user_id="u1", model_version="1")
    second = await client.recommend(user_id="u1", model_version="2")
    assert first["model"]["version"] == "1" and ids(first) != ids(second)
    problem = await client.recommend(404, user_id="u1", model_version="9")
    assert problem["type"] == "urn:endcap:problem:unknown-version" and "loaded: 1, 2" in problem["detail"]


async def test_an_unknown_placement_is_404_and_names_those_that_there_are(client: Client) -> None:
    problem = await client.recommend(404, placement="hone")
    assert "home, popular, similar" in problem["detail"]


async def test_context_replaces_stored_values_and_refuses_what_is_no_input(client: Client) -> None:
    plain = await client.recommend(user_id="u1", explain=True)
    changed = await client.recommend(user_id="u1", context={"views_1h": 50, "country": "Germany"}, explain=True)
    assert changed["inputs"]["user_activity:views_1h"] == 50
    assert [i["score"] for i in plain["items"]] != [i["score"] for i in changed["items"]]
    problem = await client.recommend(422, user_id="u1", context={"device": "phone", "views_1h": "many"})
    assert {error["path"] for error in problem["errors"]} == {"context.device", "context.views_1h"}
    problem = await client.recommend(422, user_id="u1", context={"tenure_days": -1e300})
    assert problem["errors"] == [
        {
            "path": "context.tenure_days",
            "message": "is out of range: a number may have up to 9.2e18 on either side of 0",
        }
    ]


async def test_rank_orders_the_callers_items_and_lists_the_unknown(client: Client) -> None:
    body = {"user_id": "u1", "item_ids": ["i00001", "gone", "i00002", "i00001", "i00030"]}
    answer = await client.post("/v1/rank", body)
    assert sorted(ids(answer)) == ["i00001", "i00002", "i00030"] and answer["missing_item_ids"] == ["gone"]
    assert {item["source"] for item in answer["items"]} == {"request"}
    await client.post("/v1/rank", {"user_id": "u1", "item_ids": []}, 422)
    many = await client.post("/v1/rank", {"item_ids": [f"i{i:05d}" for i in range(2000)]})
    assert len(many["items"]) == 200 and len(many["missing_item_ids"]) == 1800
    await client.post("/v1/rank", {"item_ids": [str(i) for i in range(2001)]}, 422)


async def test_recommend_and_rank_agree_on_scores(client: Client) -> None:
    answer = await client.recommend(user_id="u1", count=10)
    ranked = await client.post("/v1/rank", {"user_id": "u1", "item_ids": ids(answer)})
    for one, other in zip(answer["items"], ranked["items"], strict=True):
        assert one["item_id"] == other["item_id"] and one["score"] == pytest.approx(other["score"], abs=1e-4)


@pytest.mark.parametrize(
    ("body", "kind", "status", "slug"),
    [
        (b"{", "application/json", 400, "malformed-body"),
        (b"", "application/json", 400, "malformed-body"),
        (b'{"count": NaN}', "application/json", 400, "malformed-body"),
        (b'{"user_id": "a", "user_id": "b"}', "application/json", 400, "malformed-body"),
        (b"[" * 100_000, "application/json", 400, "malformed-body"),
        (b'{"count": 0}', "application/json", 422, "invalid-request"),
        (b'{"usr": "a"}', "application/json", 422, "invalid-request"),
        (b"user_id=a", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
        (b"x" * (1 << 21), "application/json", 413, "request-entity-too-large"),
    ],
)
async def test_bad_bodies_are_problem_details(client: Client, body: bytes, kind: str, status: int, slug: str) -> None:
    problem = await client.post(
        "/v1/recommendations", None, status, data=io.BytesIO(body), headers={"Content-Type": kind}
    )
    assert problem["type"] == f"urn:endcap:problem:{slug}" and problem["status"] == status and problem["title"]


async def test_a_gzip_bomb_is_refused_by_its_size(client: Client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    bomb = gzip.compress(b" " * (64 << 20))
    assert len(bomb) < 1 << 17
    await client.post("/v1/recommendations", None, 413, data=io.BytesIO(bomb), headers=headers)


async def test_other_methods_and_paths_are_problem_details(client: Client) -> None:
    status, text = await client.get("/v1/recommendations")
    assert status == 405 and json.loads(text)["status"] == 405
    status, text = await client.get("/nothing")
    assert status == 404 and json.loads(text)["type"] == "urn:endcap:problem:not-found"


async def test_the_service_is_alive_and_ready_and_has_metrics(client: Client) -> None:
    await client.recommend(user_id="u1")
    await client.recommend(404, placement="x" * 50)
    assert (await client.get("/healthz"))[0] == 200 and (await client.get("/readyz"))[0] == 200
    _, text = await client.get("/metrics")
    who = {"model": "default", "version": "2", "group": "default"}
    endpoint = "/v1/recommendations"
    assert counted(text, "endcap_requests_total", endpoint=endpoint, placement="home", status="200", **who) == 1
    assert counted(text, "endcap_request_seconds_count", endpoint=endpoint, placement="home", **who) == 1
    assert counted(text, "endcap_requests_total", endpoint=endpoint, placement="", status="404", model="") == 1
    for name, label, value in (
        ("endcap_stage_seconds_count", "stage", "score"),
        ("endcap_feature_views_total", "view", "user_recent"),
        ("endcap_feature_age_seconds_count", "view", "user_recent"),
        ("endcap_engine_batch_size_count", "model", "default"),
        ("endcap_answers_total", "model", "default"),
    ):
        assert counted(text, name, **{**who, label: value}) == 1, name
    assert counted(text, "endcap_items_total", **who) == 20
    ours = [line for line in text.splitlines() if line.startswith("endcap_")]
    assert not [line for line in ours if "xxxx" in line], "a caller's text must not become a metric's label"


async def test_a_failure_after_the_choice_is_counted_for_who_was_chosen(client: Client) -> None:
    """So that a version that fails is seen to; what fails before it is known who would answer is nobody's."""
    await client.recommend(422, user_id="u1", model_version="1", context={"nothing": 1})
    await client.post("/v1/recommendations", {"user_id": 1}, 422)
    _, text = await client.get("/metrics")
    path = "/v1/recommendations"
    assert counted(text, "endcap_requests_total", endpoint=path, status="422", version="1", group="pinned") == 1
    assert counted(text, "endcap_requests_total", endpoint=path, status="422", version="", group="") == 1
    assert counted(text, "endcap_request_seconds_count", endpoint=path, placement="home", version="1") == 1


async def test_openapi_describes_what_the_service_really_answers(client: Client) -> None:
    """Requests and answers on the wire validate against the generated document."""
    document = json.loads((await client.get("/openapi.json"))[1])
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) >= {"/v1/recommendations", "/v1/rank", "/healthz", "/readyz", "/metrics"}
    answer = await client.recommend(user_id="u1", explain=True)
    problem = await client.recommend(422, count=0)
    operation = document["paths"]["/v1/recommendations"]["post"]
    for status, content in (("200", answer), ("422", problem)):
        media = next(one for kind, one in operation["responses"][status]["content"].items() if "json" in kind)
        jsonschema.Draft202012Validator({**document, **media["schema"]}).validate(content)
    example = operation["requestBody"]["content"]["application/json"]["example"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**document, **schema}).validate(example)
    assert (await client.get("/docs"))[0] == 200


async def test_the_category_cap_holds_for_anonymous_shoppers_too(client: Client) -> None:
    answer = await client.recommend(count=20, explain=True)
    categories = [item["explain"]["category"] for item in answer["items"]]
    assert max(categories.count(one) for one in categories) <= 6
