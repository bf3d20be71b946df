"""Time travel: a logged answer made again, on a real service with its real log."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import jsonschema
import msgspec
import pytest

from features.errors import FeatureStoreError
from service.app import App
from service.config import read_config
from service.placements import Placement, PlacementRules
from service.travel import Traveller
from tests.service.conftest import Client
from tests.service.test_deadlines import SHORT, ask, recommender, stuck_engine


async def travel(client: Client, of: dict[str, Any] | str, query: str = "", status: int = 200) -> dict[str, Any]:
    its_id = of if isinstance(of, str) else of["recommendation_id"]
    found, text = await client.get(f"/v1/recommendations/{its_id}{query and '?'}{query}")
    assert found == status, text
    answer: dict[str, Any] = msgspec.json.decode(text)
    return answer


def check_same(answer: dict[str, Any], found: dict[str, Any]) -> None:
    """What was answered, what was logged and what is made now are one and the same."""
    shown = [(place, one["item_id"], one["score"], one["source"]) for place, one in enumerate(answer["items"], 1)]
    for side in (found["logged"], found["now"]):
        assert [(one["place"], one["item_id"], one["score"], one["source"]) for one in side["items"]] == shown
        assert (side["model"], side["degraded"]) == (answer["model"], answer["degraded"])
    assert found["identical"] is True and found["because"] == found["changed"] == []
    assert [
        (one["item_id"], one["place_before"], one["place_after"], one["score_change"]) for one in found["moves"]
    ] == [(name, place, place, 0.0) for place, name, _, _ in shown]


SESSION = {"item_ids": ["i00007", "i00012", "nothing"]}


@pytest.mark.parametrize(
    "body",
    [
        {"user_id": "u1"},
        {"user_id": "u2", "count": 60, "session": SESSION},
        {"user_id": "u3", "placement": "popular"},
        {"user_id": "u4", "placement": "similar", "item_id": "i00011", "count": 10},
        {"placement": "similar", "item_id": "gone"},
        {"session": SESSION},
        {"session": SESSION, "user_id": "nobody"},
        {"user_id": "nobody"},
        {},
        {"user_id": "u5", "item_id": "i00011", "exclude_item_ids": ["i00001", "i00002"], "explain": True,
         "filter": {"category": ["Bags", "Lamps"], "price": {"min": 5, "max": 40}}},
        {"user_id": "u6", "filter": {"price": {"min": 1e6}}, "count": 3},
        {"user_id": "u7", "context": {"country": "Germany", "views_1h": 7, "tenure_days": None, "spend_30d": 0.1}},
        {"user_id": "u8", "model_version": "1"},
    ],
)  # fmt: skip
async def test_the_same_version_answers_the_same_bit_for_bit(client: Client, body: dict[str, Any]) -> None:
    """Every placement, known, unknown and anonymous shoppers, filters, exclusions, a context, a version insisted on."""
    answer = await client.recommend(**body)
    found = await travel(client, answer)
    check_same(answer, found)
    assert (found["endpoint"], found["placement"]) == ("recommend", body.get("placement", "home"))


@pytest.mark.parametrize("who", [{"user_id": "u1"}, {}, {"user_id": "nobody", "session": SESSION}])
async def test_ranked_items_are_the_same_again(client: Client, who: dict[str, Any]) -> None:
    own = ["i00009", "gone", "i00002", "i00009", "i00014", "i00031"]
    answer = await client.post("/v1/rank", {**who, "item_ids": own, "context": {"country": "France"}})
    found = await travel(client, answer)
    check_same(answer, found)
    assert found["endpoint"] == "rank"


async def test_answers_of_one_batch_are_the_same_alone(client: Client) -> None:
    """Of requests that come together some are computed together; each is made again by itself."""
    bodies: list[dict[str, Any]] = [{"user_id": f"u{n % 12}", "count": 5 + n} for n in range(24)]
    replies, together = recommender(client).replies, []
    kept = replies.record
    replies.record = lambda answered: (together.append(answered.batch_size), kept(answered))[1]
    answers = [await one for one in [asyncio.create_task(ask_alone(client, body)) for body in bodies]]
    assert max(together) > 1
    for answer in answers:
        check_same(answer, await travel(client, answer))


async def ask_alone(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    async with client.session.post(f"{client.url}/v1/recommendations", json=body) as response:
        assert response.status == 200
        found: dict[str, Any] = await response.json()
        return found


@pytest.mark.parametrize(("rungs", "given_up"), [(1, ["candidates"]), (2, ["candidates", "ranker"]), (3, ["popular"])])
async def test_what_time_left_no_room_for_is_done_without_again(
    client: Client, rungs: int, given_up: list[str]
) -> None:
    """Though there is time enough now."""
    shares = recommender(client).shares
    for rung in range(rungs):
        shares.learn("home", rung, 3600.0)
    answer = await ask(client, user_id="u1", count=5, exclude_item_ids=["i00001"])
    assert answer["degraded"] == given_up
    for rung in range(rungs):
        shares.learn("home", rung, 0.0)
    check_same(answer, await travel(client, answer))


async def test_an_answer_that_the_engine_never_gave_is_made_again_without_it(client: Client) -> None:
    """Popular items; and a caller's own in its order, which the log tells from those that only no ranker has seen."""
    with stuck_engine(client):
        popular = await ask(client, headers=SHORT, user_id="u1", count=5)
        own = await client.post("/v1/rank", {"item_ids": ["i00009", "i00002"], "user_id": "u1"}, headers=SHORT)
        check_same(popular, await travel(client, popular))
        check_same(own, await travel(client, own))
    recommender(client).shares.learn("home/rank", 0, 3600.0)
    unranked = await client.post("/v1/rank", {"item_ids": ["i00009", "i00002"], "user_id": "u1"})
    assert (own["degraded"], unranked["degraded"]) == (["ranker"], ["ranker"])
    assert own["items"][1]["score"] != unranked["items"][1]["score"]
    check_same(unranked, await travel(client, unranked))


async def test_what_the_store_did_not_say_is_done_without_again(client: Client) -> None:
    """The last known features of one shopper, none of another; though the store answers now."""
    reader = client.app.reader
    assert reader is not None
    await client.recommend(user_id="u1")
    kept = reader.read

    async def failing(user_id: str) -> Any:
        raise FeatureStoreError("Redis: gone")

    reader.read = failing  # type: ignore[method-assign]
    remembered, forgotten = [await client.recommend(user_id=user, session=SESSION) for user in ("u1", "never read")]
    reader.read = kept  # type: ignore[method-assign]
    assert (remembered["degraded"], forgotten["degraded"]) == (["last_known"], ["features"])
    for answer in (remembered, forgotten):
        check_same(answer, await travel(client, answer))


async def test_a_placement_is_as_it_was_set_then(client: Client) -> None:
    """Where endcap.toml has changed since, the rules, filters and quotas of the answer's time stand."""
    answer = await client.recommend(user_id="u1", count=20)
    placements = recommender(client).placements
    rules = PlacementRules(category_cap=1)
    placements.placements["home"] = Placement({"popular": 30}, ranked=False, rules=rules)
    other = await client.recommend(user_id="u1", count=20)
    assert other["items"] != answer["items"]
    check_same(answer, await travel(client, answer))
    del placements.placements["home"]
    check_same(answer, await travel(client, answer))


async def test_the_features_are_those_of_then(client: Client) -> None:
    """Events that came since are in the shopper's features now, and not in the answer made again."""
    body = {"user_id": "u9", "count": 10}
    answer = await client.recommend(**body)
    event = {"event_id": f"travel-{time.time_ns()}", "user_id": "u9", "item_id": answer["items"][0]["item_id"],
             "type": "purchase"}  # fmt: skip
    token = (await client.post("/v1/events", {"events": [event]}, 202))["token"]
    after = await client.post("/v1/recommendations", body, headers={"Endcap-After": token})
    assert after["items"] != answer["items"]
    found = await travel(client, answer)
    then, now = ([one["item_id"] for one in found[side]["items"]] for side in ("logged", "now"))
    assert then == now == [one["item_id"] for one in answer["items"]], "a bought item would be left out"


async def test_another_version_makes_another_list_and_every_move_is_told(client: Client) -> None:
    answer = await client.recommend(user_id="u1", count=20)
    other = "1" if answer["model"]["version"] == "2" else "2"
    found = await travel(client, answer, f"model_version={other}")
    direct = await client.recommend(user_id="u1", count=20, model_version=other)
    assert found["now"]["model"]["version"] == other and not found["identical"]
    assert [one["item_id"] for one in found["now"]["items"]] == [one["item_id"] for one in direct["items"]]
    before, after = ({one["item_id"]: one for one in found[side]["items"]} for side in ("logged", "now"))
    assert len(found["moves"]) == len(before | after) > 20
    for move in found["moves"]:
        one, two = before.get(move["item_id"]), after.get(move["item_id"])
        assert (move["place_before"], move["place_after"]) == (one and one["place"], two and two["place"])
        assert move["score_change"] == (two["score"] - one["score"] if one and two else None)


@pytest.mark.parametrize("form", ["user_profile.country={}", "user_profile:country={}"])
async def test_a_changed_feature_is_what_a_context_would_have_been(client: Client, form: str) -> None:
    answer = await client.recommend(user_id="u1", explain=True)
    country = answer["inputs"]["user_profile:country"]
    other = "Germany" if country != "Germany" else "France"
    wanted = await client.recommend(user_id="u1", context={"country": other, "views_1h": 50})
    query = f"set={quote(form.format(other))}&set=user_activity.views_1h=50"
    found = await travel(client, answer, query)
    assert found["changed"] == [
        {"feature": "user_profile:country", "before": country, "after": other},
        {"feature": "user_activity:views_1h", "before": answer["inputs"]["user_activity:views_1h"], "after": 50},
    ]
    assert not found["identical"] and any(move["score_change"] for move in found["moves"])
    now = [(one["item_id"], one["score"]) for one in found["now"]["items"]]
    assert now == [(one["item_id"], one["score"]) for one in wanted["items"]]


async def test_a_list_can_be_set_and_what_was_bought_is_left_out(client: Client) -> None:
    answer = await client.recommend(user_id="u1", count=5)
    names = [one["item_id"] for one in answer["items"]]
    bought = quote(msgspec.json.encode(names[:2]).decode())
    found = await travel(client, answer, f"set=user_recent.purchased_item_ids={bought}")
    gone = [move["item_id"] for move in found["moves"] if move["place_after"] is None]
    assert names[:2] == gone[:2]


async def test_a_change_of_the_catalogue_is_named_where_it_may_be_why(client: Client) -> None:
    answer = await client.recommend(user_id="u1", count=5)
    gone = answer["items"][0]["item_id"]
    try:
        await client.post("/v1/items", {"items": [{"item_id": gone, "in_stock": False}]}, 202)
        await until_gone(client, gone)
        found = await travel(client, answer)
        assert not found["identical"] and "items" in {one["reason"] for one in found["because"]}
        assert next(one for one in found["moves"] if one["item_id"] == gone)["place_after"] is None
    finally:
        await client.post("/v1/items", {"items": [{"item_id": gone, "in_stock": True}]}, 202)


async def until_gone(client: Client, item: str) -> None:
    for _ in range(200):
        if item not in [one["item_id"] for one in (await client.recommend(user_id="u1", count=5))["items"]]:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{item} is still there")


async def refused(client: Client, of: dict[str, Any] | str, query: str, status: int, slug: str) -> str:
    """The detail of the problem, which is one line."""
    problem = await travel(client, of, query, status)
    assert problem["type"] == f"urn:endcap:problem:{slug}" and problem["status"] == status
    assert "\n" not in problem["detail"]
    return str(problem["detail"])


async def test_what_no_answer_can_be_is_told_at_once(client: Client) -> None:
    """Malformed ids, those of nobody, of the future, and of before ids said when."""
    for its_id in ("7", "g" * 32, "A" * 32, "0" * 33, "i00007"):
        assert "32 digits" in await refused(client, its_id, "", 422, "invalid-request")
    for its_id in (f"{int(time.time() * 1e3 + 3.6e6):012x}{'0' * 20}", "f" * 32, "9f2c" * 8, "0" * 32):
        assert "last 14 days" in await refused(client, its_id, "", 404, "unknown-answer")
    nobodys = f"{int((time.time() - 20) * 1e3):012x}{'0' * 20}"
    assert "does not have it" in await refused(client, nobodys, "", 404, "unknown-answer")


async def test_a_version_that_is_not_loaded_any_more_is_named_with_a_way_out(client: Client) -> None:
    answer = await client.recommend(user_id="u1", model_version="1")
    assert client.app.versions is not None
    del client.app.versions.bundles["default"]["1"]
    detail = await refused(client, answer, "", 404, "unknown-version")
    assert "no version 1 here; loaded: 2" in detail and "`model_version`" in detail
    assert "`model_version`" not in await refused(client, answer, "model_version=9", 404, "unknown-version")
    assert (await travel(client, answer, "model_version=2"))["now"]["model"]["version"] == "2"
    client.app.versions.bundles.clear()
    assert "loaded: none" in await refused(client, answer, "", 404, "unknown-version")


@pytest.mark.parametrize(
    ("query", "path", "says"),
    [
        ("version=1", "version", "Unknown parameter; known: model_version, set"),
        ("model_version=1&model_version=2", "model_version", "one version"),
        ("model_version=", "model_version", "one version"),
        ("set=country=DE", "set[0]", "'country' is no feature of this model; features are user_activity:carts_1h"),
        ("set=user_profile.color=red", "set[0]", "user_profile:country"),
        ("set=user_profile.country", "set[0]", "is no feature=value"),
        ("set=user_profile.country=DE&set=user_activity.views_1h=many", "set[1]", "takes a whole number, not 'many'"),
        ("set=user_activity.views_1h=1.5", "set[0]", "takes a whole number"),
        ("set=user_activity.views_1h=true", "set[0]", "takes a whole number"),
        ("set=user_activity.views_1h=9223372036854775808", "set[0]", "out of range"),
        ("set=user_profile.tenure_days=NaN", "set[0]", "takes a number"),
        ("set=user_profile.tenure_days=1e999", "set[0]", "takes a number"),
        ("set=user_recent.item_ids=i00001", "set[0]", "a JSON list, each of it a string"),
        ("set=user_recent.item_ids=[1]", "set[0]", "a JSON list, each of it a string"),
        ("set=user_profile.country=DE&set=user_profile:country=FR", "set[1]", "is set twice"),
    ],
)
async def test_what_cannot_be_asked_is_named_by_its_place(client: Client, query: str, path: str, says: str) -> None:
    answer = await client.recommend(user_id="u1", count=3)
    problem = await travel(client, answer, query, 422)
    assert [one["path"] for one in problem["errors"]] == [path] and says in problem["errors"][0]["message"]


async def test_null_is_a_missing_value_and_an_anonymous_shopper_stays_one(client: Client) -> None:
    """A value that is set makes nobody known, as a context does not."""
    answer = await client.recommend(user_id="u1", count=5)
    wanted = await client.recommend(user_id="u1", count=5, context={"tenure_days": None})
    found = await travel(client, answer, "set=user_profile.tenure_days=null")
    assert found["changed"][0]["after"] is None
    assert [one["score"] for one in found["now"]["items"]] == [one["score"] for one in wanted["items"]]
    nobody = await client.recommend(count=5)
    assert (await travel(client, nobody, "set=user_profile.tenure_days=3"))["identical"]


async def test_a_busy_engine_is_not_waited_for_for_ever(client: Client) -> None:
    answer = await client.recommend(user_id="u1", count=5)
    travels = client.app.api.travel.travels
    assert isinstance(travels, Traveller)
    travels.timeout_s = 0.2
    with stuck_engine(client):
        assert "others go first" in await refused(client, answer, "", 504, "deadline-exceeded")


async def test_without_a_log_there_is_nothing_to_travel_to(deployment: Path) -> None:
    config = read_config(deployment)
    app = App(deployment, msgspec.structs.replace(config, log=msgspec.structs.replace(config.log, enabled=False)))
    port = await app.listen("127.0.0.1", 0)
    await app.load()
    async with aiohttp.ClientSession() as session:
        client = Client(app, session, f"http://127.0.0.1:{port}")
        answer = await client.recommend(user_id="u1", count=3)
        assert "log.enabled" in await refused(client, answer, "", 404, "unknown-answer")
    await app.stop()


async def test_a_file_that_cannot_be_read_is_named_where_it_may_have_the_answer(client: Client) -> None:
    """And stands in nobody's way where the answer is in another."""
    answer = await client.recommend(user_id="u1", count=3)
    await travel(client, answer)
    at = int(time.time())
    broken = client.app.log.folder(at // 3600) / f"{time.time_ns()}-1-broken.parquet"
    broken.write_bytes(b"no parquet")
    try:
        check_same(answer, await travel(client, answer))
        nobodys = f"{(at // 3600 * 3600) * 1000:012x}{'0' * 20}"
        assert "broken.parquet" in await refused(client, nobodys, "", 503, "log-unreadable")
    finally:
        broken.unlink()


async def test_the_document_describes_what_is_answered(client: Client) -> None:
    document = msgspec.json.decode((await client.get("/openapi.json"))[1])
    found = await travel(client, await client.recommend(user_id="u1"), "set=user_profile.country=France")
    operation = document["paths"]["/v1/recommendations/{recommendation_id}"]["get"]
    (media,) = operation["responses"]["200"]["content"].values()
    jsonschema.Draft202012Validator({**document, **media["schema"]}).validate(found)
    assert [(one["name"], one["in"], one["required"]) for one in operation["parameters"]] == [
        ("recommendation_id", "path", True), ("model_version", "query", False), ("set", "query", False)
    ]  # fmt: skip
