"""A stock Feast SDK whose online store is `type: remote` reads from Endcap what it reads from Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from features.pipeline import encode
from features.store import open_store, quiet
from service.feast_desk import FeastDesk
from tests.conftest import Server
from tests.service.feast_shop import NOW, SHOPS, answering, make_feast_shop, remote_store, serving
from tests.service.test_lean import ABSENT, apart

USERS = [f"u{i}" for i in range(12)]
ITEMS = [f"i{i:05d}" for i in range(200)]
NEVER = "1970-01-01T00:00:00Z"
Row = tuple[Any, str, str]


@pytest.fixture(scope="module")
def feast_shop(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_feast_shop(tmp_path_factory.mktemp("feastapi"), valkey.address)


class Reads:
    """Asks Endcap over HTTP and through the SDK, and Redis through the SDK."""

    def __init__(self, directory: Path, url: str, desk: FeastDesk, session: aiohttp.ClientSession) -> None:
        self.url, self.desk, self.session = url, desk, session
        self.direct, self.remote = open_store(directory / "feature_repo"), remote_store(directory, url)

    async def post(self, path: str, body: Any, status: int = 200) -> Any:
        content = {"data": body} if isinstance(body, bytes) else {"json": body}
        headers = {"Content-Type": "application/json"}
        async with self.session.post(self.url + path, headers=headers, **content) as response:
            text = await response.text()
            assert response.status == status, text
            return json.loads(text)

    async def ask(self, status: int = 200, **body: Any) -> Any:
        return await self.post("/get-online-features", body, status)

    async def feasts(self, features: Any, entities: Mapping[str, list[Any]], **options: Any) -> dict[str, list[Row]]:
        """What Feast's own server answers: the SDK's reading of Redis, put into JSON as that server does."""
        from feast.feature_server_utils import convert_response_to_dict

        found = await sdk(self.direct.get_online_features, self.of(features), dict(entities), **options)
        return rows_of(convert_response_to_dict(found.proto))

    async def ours(self, features: Any, entities: Mapping[str, list[Any]], **options: Any) -> dict[str, list[Row]]:
        asked = {"feature_service" if isinstance(features, str) else "features": features}
        return rows_of(await self.ask(entities=entities, **asked, **options))

    def of(self, features: Any) -> Any:
        return self.direct.get_feature_service(features) if isinstance(features, str) else features

    def all_of(self, *views: str) -> list[str]:
        return [f"{view}:{field.name}" for view in views for field in self.direct.get_feature_view(view).features]


async def sdk(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the SDK answers, which waits for it in a thread."""
    with quiet():
        return await asyncio.to_thread(call, *arguments, **options)


def rows_of(answer: dict[str, Any]) -> dict[str, list[Row]]:
    """By feature: each entity's value, status and event time."""
    names = answer["metadata"]["feature_names"]
    columns = [
        list(zip(one["values"], one["statuses"], one["event_timestamps"], strict=True)) for one in answer["results"]
    ]
    return dict(zip(names, columns, strict=True))


def nulls_told(found: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Feast's answer with the status that its protocol has for a null in a row that is there."""
    return {
        name: [(None, "NULL_VALUE", time) if value is None else (value, status, time) for value, status, time in column]
        for name, column in found.items()
    }


@pytest.fixture
async def reads(feast_shop: Path) -> AsyncIterator[Reads]:
    async with answering(feast_shop, empty_lists="list") as (url, desk), aiohttp.ClientSession() as session:
        yield Reads(feast_shop, url, desk, session)


LOOKUPS: list[tuple[tuple[str, ...], dict[str, list[Any]]]] = [
    (("user_profile", "user_activity", "user_recent"), {"user_id": USERS * 3}),
    (("item_stats",), {"item_id": ITEMS}),
    (("every_type",), {"shop_id": [i for i in range(SHOPS) if i != 7]}),
    (("every_type",), {"shop_id": [str(i) for i in range(3)]}),
    (("pair",), {"shop_id": [0] * 12, "user_id": USERS}),
    (("pair", "user_profile", "item_stats"), {"user_id": USERS, "shop_id": [0] * 12, "item_id": ITEMS[3:15]}),
]


@pytest.mark.parametrize("full_names", [False, True])
@pytest.mark.parametrize(("views", "entities"), LOOKUPS)
async def test_an_answer_is_that_of_feasts_own_server(
    reads: Reads, views: tuple[str, ...], entities: dict[str, list[Any]], full_names: bool
) -> None:
    """To the letter, where all entities are there: values of every type, statuses (a null's apart) and event times."""
    features = reads.all_of(*views)
    theirs = await reads.feasts(features, entities, full_feature_names=full_names)
    assert await reads.ours(features, entities, full_feature_names=full_names) == nulls_told(theirs)
    assert len(theirs) == len(features) + len(entities)
    assert all(one[1] == "PRESENT" for column in theirs.values() for one in column)


@pytest.mark.parametrize(("service", "entities"), [
    ("mixed", {"user_id": USERS, "shop_id": [0] * 12, "item_id": ITEMS[:12]}),
    ("friend", {"user_id": USERS, "friend_id": USERS[::-1]}),
    ("default", {"user_id": USERS, "item_id": ITEMS[:12]}),
])  # fmt: skip
async def test_a_feature_service_is_read_with_its_own_names_and_join_keys(
    reads: Reads, service: str, entities: dict[str, list[Any]]
) -> None:
    for full_names in (True, False) if service != "default" else (True,):  # two of its features have one name
        theirs = await reads.feasts(service, entities, full_feature_names=full_names)
        assert await reads.ours(service, entities, full_feature_names=full_names) == nulls_told(theirs)


async def test_an_entity_that_is_not_there_is_not_found_where_feast_says_present(reads: Reads) -> None:
    """On purpose: Feast's Redis store says PRESENT of whom it has never seen."""
    features, entities = reads.all_of("user_profile"), {"user_id": ["u1", "nobody", "é"]}
    theirs, ours = await reads.feasts(features, entities), await reads.ours(features, entities)
    for name in (one.partition(":")[2] for one in features):
        assert ours[name][0] == theirs[name][0]
        assert theirs[name][1:] == [(None, "PRESENT", NEVER)] * 2
        assert ours[name][1:] == [(None, "NOT_FOUND", NEVER)] * 2


async def test_a_value_that_is_null_has_its_own_status_where_feast_says_present(reads: Reads) -> None:
    """On purpose: it is what Feast's protocol has NULL_VALUE for."""
    features, entities = reads.all_of("every_type"), {"shop_id": [7]}
    theirs, ours = await reads.feasts(features, entities), await reads.ours(features, entities)
    time = theirs["text"][0][2]
    assert theirs.pop("text") == [(None, "PRESENT", time)] and ours.pop("text") == [(None, "NULL_VALUE", time)]
    assert ours == theirs


async def test_a_row_past_its_ttl_is_told_and_not_given_where_feast_gives_it(reads: Reads) -> None:
    """On purpose: Feast does not look at a view's ttl online. Training does: its join leaves such a row out."""
    features, entities = ["pair:visits"], {"user_id": USERS, "shop_id": [1] * 12}
    theirs, ours = await reads.feasts(features, entities), await reads.ours(features, entities)
    time = (NOW - timedelta(hours=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert theirs["visits"] == [(12 + i, "PRESENT", time) for i in range(12)]
    assert ours["visits"] == [(None, "OUTSIDE_MAX_AGE", time)] * 12


async def test_a_row_that_cannot_be_read_spoils_itself_only(reads: Reads) -> None:
    """Feast answers 500 for all of the entities then."""
    from features.layout import feature_field, key_maker

    key = key_maker("feastapi", "user_id")("broken")
    pushed = {"user_id": ["broken"], "event_timestamp": [NOW.isoformat()]}
    row = {name.partition(":")[2]: [None] for name in reads.all_of("user_profile")} | {"country": ["FR"]}
    await reads.post("/write-to-online-store", {"feature_view_name": "user_profile", "df": pushed | row})
    await reads.desk.reader.pipeline.execute(encode(b"HSET", key, feature_field("user_profile", "orders"), b"\x20"))
    ours = await reads.ours(["user_profile:orders", "user_profile:country"], {"user_id": ["u1", "broken"]})
    assert [one[1] for one in ours["country"]] == ["PRESENT", "INVALID"]
    with pytest.raises(Exception, match="Error parsing message"):
        await reads.feasts(["user_profile:orders"], {"user_id": ["u1", "broken"]})


async def test_a_join_key_that_is_left_out_is_told_where_feast_finds_nothing(reads: Reads) -> None:
    """On purpose: Feast looks for an entity of the join keys that are there, which nobody has written."""
    theirs = await reads.feasts(["pair:visits"], {"user_id": ["u1"]})
    assert theirs["visits"] == [(None, "PRESENT", NEVER)]
    found = await reads.ask(422, features=["pair:visits"], entities={"user_id": ["u1"]})
    assert [one["path"] for one in found["errors"]] == ["entities.shop_id"]


async def test_an_empty_list_is_null_for_the_sdk_which_fails_on_one(reads: Reads, feast_shop: Path) -> None:
    """`feast_api.empty_lists` says which."""
    frame = {
        "user_id": ["empty"],
        "event_timestamp": [NOW.isoformat()],
        "item_ids": [[]],
        "purchased_item_ids": [["a"]],
    }
    await reads.post("/write-to-online-store", {"feature_view_name": "user_recent", "df": frame})
    features, entities = ["user_recent:item_ids", "user_recent:purchased_item_ids"], {"user_id": ["empty"]}
    found = await reads.ours(features, entities)
    assert found["item_ids"][0][:2] == ([], "PRESENT") and found == await reads.feasts(features, entities)
    with pytest.raises(TypeError, match="Couldn't infer value type from empty value"):
        await sdk(reads.remote.get_online_features, features, entities)
    async with answering(feast_shop) as (url, desk):
        other = Reads(feast_shop, url, desk, reads.session)
        assert (await other.ours(features, entities))["item_ids"][0][:2] == (None, "PRESENT")
        answer = await sdk(other.remote.get_online_features, features, entities)
        assert answer.to_dict() == {"user_id": ["empty"], "item_ids": [None], "purchased_item_ids": [["a"]]}


async def test_the_answer_is_what_openapi_says_it_is(reads: Reads) -> None:
    import jsonschema

    async with reads.session.get(reads.url + "/openapi.json") as response:
        document = await response.json()
    operation = document["paths"]["/get-online-features"]["post"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    answer = await reads.ask(
        features=["user_profile:country", "pair:visits"], entities={"user_id": ["u1", "nobody"], "shop_id": [1, 1]},
        include_feature_view_version_metadata=True,
    )  # fmt: skip
    jsonschema.Draft202012Validator({**document, **schema}).validate(answer)
    assert set(document["paths"]) >= {"/push", "/write-to-online-store", "/health"}


async def test_an_entity_named_by_its_entity_is_taken_as_feast_takes_it(reads: Reads) -> None:
    entities = {"user": USERS, "no_entity": list(range(12)), "shop_id": [1] * 12}
    theirs = await reads.feasts(["user_profile:country"], entities)
    assert await reads.ours(["user_profile:country"], entities) == theirs
    assert set(theirs) == {"user_id", "country", "shop_id"}, "and what is no join key is left out"


async def test_the_versions_of_the_views_are_told_where_they_are_asked_for(reads: Reads) -> None:
    entities, features = {"user_id": ["u1"], "item_id": ["i00001"]}, ["user_profile:country", "item_stats:price"]
    answer = await reads.ask(entities=entities, features=features, include_feature_view_version_metadata=True)
    assert answer["metadata"]["feature_view_metadata"] == [{"name": "user_profile"}, {"name": "item_stats"}]
    from feast.feature_server_utils import convert_response_to_dict

    found = await sdk(reads.direct.get_online_features, features, entities, include_feature_view_version_metadata=True)
    assert convert_response_to_dict(found.proto)["metadata"]["feature_view_metadata"] == [
        {"name": "user_profile"}, {"name": "item_stats"}
    ]  # fmt: skip


@pytest.mark.parametrize("full_names", [False, True])
async def test_a_stock_sdk_reads_the_same_values_as_from_redis(feast_shop: Path, full_names: bool) -> None:
    """Through the whole service. Three differences: an empty list is null, because the SDK fails on one from any remote
    store; bytes and times come as JSON has them, because the SDK does not ask of which type they are."""
    async with serving(feast_shop) as client:
        direct, remote = open_store(feast_shop / "feature_repo"), remote_store(feast_shop, client.url)
        asked: list[Any] = [([f"{view}:{one.name}" for view in views for one in direct.get_feature_view(view).features],
                             entities) for views, entities in LOOKUPS]  # fmt: skip
        asked += [(direct.get_feature_service("mixed"), {"user_id": USERS, "shop_id": [0] * 12, "item_id": ITEMS[:12]})]
        for features, entities in asked:
            theirs, ours = [
                (await sdk(one.get_online_features, features, entities, full_feature_names=full_names)).to_dict()
                for one in (direct, remote)
            ]
            assert set(theirs) == set(ours)
            for name, values in theirs.items():
                if name.endswith(("raw", "seen")):
                    continue
                assert ours[name] == [None if one == [] else one for one in values], name
        status, text = await client.get("/health")
        assert (status, text) == (200, "")


async def test_the_sdks_own_reader_of_one_view_reads_here_too(reads: Reads) -> None:
    """`online_read`, which asks for one view and believes the statuses."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    view = reads.direct.get_feature_view("user_profile")
    keys = [EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=one)]) for one in ("u1", "nobody")]
    names = ["country", "orders"]
    theirs, ours = [
        await sdk(store._get_provider().online_read, store.config, view, keys, names[:])
        for store in (reads.direct, reads.remote)
    ]
    assert [row for _, row in ours] == [
        {name: value for name, value in row.items() if name in names} for _, row in theirs
    ]


@pytest.mark.parametrize(
    ("features", "entities", "kind", "said"),
    [
        (["nope:x"], {"user_id": ["u1"]}, "FeatureViewNotFoundException", "Feature view nope does not exist"),
        (["user_profile:country", "item_stats:price", "user_profile:country"],
         {"user_id": ["u1"], "item_id": ["i00001"]},
         "FeatureNameCollisionError", "there twice: country"),
        (["user_profile:nope"], {"user_id": ["u1"]}, "RuntimeError", "422.*has no feature 'nope'; there are country"),
        (["user_profile:country"], {"item_id": ["i00001"]}, "RuntimeError", "422.*entities.user_id.*Missing"),
        (["user_profile:country"], {"user_id": ["u1"], "item_id": []}, "RuntimeError", "422.*of the same length"),
        (["user_profile:country"], {"user_id": ["u1", None]}, "RuntimeError", r"422.*entities.user_id\[1\].*None"),
        (["every_type:text"], {"shop_id": ["x"]}, "RuntimeError", r"422.*entities.shop_id\[0\].*64 bits"),
        (["user_profile"], {"user_id": ["u1"]}, "RuntimeError", r"422.*features\[0\].*Expected view:feature"),
        (["user_profile:country"], {"user_id": ["u1"], "user": ["u2"]}, "RuntimeError", "422.*entities.user.*as well"),
        (["pair:visits"], {"user_id": ["u1"]}, "RuntimeError", "422.*entities.shop_id.*Missing"),
        (["doubled:twice"], {"user_id": ["u1"]}, "RuntimeError", "501.*on-demand"),
        (["user_profile@v2:country"], {"user_id": ["u1"]}, "RuntimeError", "501.*only the latest"),
    ],
)  # fmt: skip
async def test_a_mistake_is_told_as_the_sdk_can_show_it(
    reads: Reads, features: list[str], entities: dict[str, list[Any]], kind: str, said: str
) -> None:
    with pytest.raises(Exception, match=f"(?s){said}") as caught:
        await sdk(reads.remote.get_online_features, features, entities)
    assert type(caught.value).__name__ == kind


async def test_a_service_that_there_is_not_or_that_is_computed_is_told(reads: Reads) -> None:
    from feast import FeatureService

    with pytest.raises(Exception, match="Feature service nope does not exist") as caught:
        await sdk(reads.remote.get_online_features, FeatureService(name="nope", features=[]), {"user_id": ["u1"]})
    assert type(caught.value).__name__ == "FeatureServiceNotFoundException"
    assert "on-demand" in (await reads.ask(501, feature_service="computed", entities={"user_id": ["u1"]}))["detail"]


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        (b"{", 400, None), (b"[]", 422, ""), (b'{"entities": {"a": [1]}, "entities": {}}', 400, None),
        (b'{"entities": {"a": [NaN]}}', 400, None), (b'{"features": []}', 422, "entities"),
        (b'{"entities": {"user_id": "u1"}}', 422, "entities.user_id"),
        (b'{"entities": {"user_id": ["u1"]}}', 422, "features"),
        (b'{"entities": {}, "features": ["user_profile:country"]}', 422, "entities"),
        (b'{"entities": {"user_id": [["u1"]]}, "features": ["user_profile:country"]}', 422, "entities.user_id[0]"),
        (b'{"entities": {"user_id": ["u1"]}, "features": [1]}', 422, "features[0]"),
        (b'{"entities": {"user_id": ["u1"]}, "full_feature_names": 1}', 422, "full_feature_names"),
    ],
)  # fmt: skip
async def test_a_body_that_makes_no_sense_is_refused_with_its_place(
    reads: Reads, body: bytes, status: int, path: str | None
) -> None:
    found = await reads.post("/get-online-features", body, status)
    assert path is None or [one["path"] for one in found["errors"]] == [path]


async def test_fields_of_a_newer_sdk_are_left_out_of_account_as_feast_does(reads: Reads) -> None:
    found = await reads.ask(entities={"user_id": ["u1"]}, features=["user_profile:country"], newer=True)
    assert found["metadata"]["feature_names"] == ["user_id", "country"]


async def test_more_entities_than_are_allowed_are_refused(feast_shop: Path) -> None:
    async with answering(feast_shop, max_entities=3) as (url, desk), aiohttp.ClientSession() as session:
        reads = Reads(feast_shop, url, desk, session)
        await reads.ask(entities={"user_id": ["u1"] * 3}, features=["user_profile:country"])
        found = await reads.ask(422, entities={"user_id": ["u1"] * 4}, features=["user_profile:country"])
        assert "at most 3 entities, got 4 (feast_api.max_entities)" in found["detail"]


async def test_more_than_can_be_read_at_once_is_refused_and_told_to_come_again(feast_shop: Path) -> None:
    """And what was refused, or failed, leaves its room to others."""
    async with answering(feast_shop, max_entities=10) as (url, desk), aiohttp.ClientSession() as session:
        asked = {"entities": {"user_id": ["u1"] * 10}, "features": ["user_profile:country"]}

        async def one() -> tuple[int, str | None]:
            async with session.post(url + "/get-online-features", json=asked) as response:
                return response.status, response.headers.get("Retry-After")

        await desk.pusher.pipeline.execute(encode(b"CLIENT", b"PAUSE", b"300"))
        found = await asyncio.gather(*(one() for _ in range(6)))
        assert sorted(found, key=str) == [(200, None)] * 4 + [(503, "1")] * 2
        assert desk.in_flight == 0 and await one() == (200, None)


SERVES = f"""
import asyncio, sys
from pathlib import Path
from service.lean import keep_pandas_out
keep_pandas_out()
import aiohttp, msgspec
from service.app import App
from service.config import FeastApiConfig, read_config

async def main():
    config = read_config(Path(sys.argv[1]))
    app = App(Path(sys.argv[1]), msgspec.structs.replace(config, feast_api=FeastApiConfig(enabled=True, push=True)))
    port = await app.listen("127.0.0.1", 0)
    await app.load()
    frame = {{"at": ["2026-01-31T09:00:00Z"], "sales": [1.5]}}
    asked = {{"features": ["every_type:raw", "every_type:seen"], "entities": {{"shop_id": [1]}}}}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{{port}}") as session:
        for path, body in (
            ("/get-online-features", asked),
            ("/write-to-online-store", {{"feature_view_name": "world", "df": frame}}),
        ):
            async with session.post(path, json=body) as response:
                assert response.status == 200, await response.text()
    await app.stop()

asyncio.run(main())
print([one for one in {ABSENT!r} if one in sys.modules and one != "google.protobuf"])  # Feast's values are messages
"""


def test_a_process_that_answers_feasts_clients_does_not_load_feast(feast_shop: Path) -> None:
    assert apart(SERVES, str(feast_shop)) == "[]"


async def test_ten_thousand_entities_are_answered_and_leave_nothing_behind(reads: Reads) -> None:
    """What a second such request takes at its peak is a few times its answer, and is given back."""
    import tracemalloc

    entities = {"user_id": [USERS[i % 12] if i % 3 else f"nobody{i}" for i in range(10_000)]}
    features = reads.all_of("user_profile", "user_activity", "user_recent")
    wanted = {"entities": entities, "features": features}
    from service.feast_wire import GetOnlineFeaturesRequest

    answer = await reads.desk.features(GetOnlineFeaturesRequest(**wanted))
    assert len(json.loads(answer)["results"]) == len(features) + 1
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        size = len(await reads.desk.features(GetOnlineFeaturesRequest(**wanted)))
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 500_000
    assert peak - before < 3.5 * size + 5_000_000


async def test_a_closed_door_says_so(feast_shop: Path) -> None:
    async with answering(feast_shop, enabled=False) as (url, desk), aiohttp.ClientSession() as session:
        reads = Reads(feast_shop, url, desk, session)
        found = await reads.ask(403, entities={"user_id": ["u1"]}, features=["user_profile:country"])
        assert "feast_api.enabled" in found["detail"]
        async with session.get(url + "/health") as response:
            assert response.status == 403


async def test_a_view_that_is_new_in_the_registry_is_read_after_the_next_look(reads: Reads) -> None:
    import msgspec

    offer = reads.desk.offer
    reads.desk.offer = msgspec.structs.replace(offer, views={})
    assert "user_profile" in await reads.ask(404, entities={"user_id": ["u1"]}, features=["user_profile:country"])
    await reads.desk.look()
    assert reads.desk.offer == offer
    await reads.ask(entities={"user_id": ["u1"]}, features=["user_profile:country"])


async def test_a_store_that_does_not_answer_is_told_in_time(reads: Reads) -> None:
    import msgspec

    reads.desk.config = msgspec.structs.replace(reads.desk.config, timeout_ms=50.0)
    await reads.desk.pusher.pipeline.execute(encode(b"CLIENT", b"PAUSE", b"300"))
    found = await reads.ask(504, entities={"user_id": ["u1"]}, features=["user_profile:country"])
    assert "feast_api.timeout_ms" in found["detail"]
