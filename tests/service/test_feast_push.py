"""What is pushed through Feast's API, or by a stock SDK: written as Feast writes it, newer over older, or refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pandas as pd
import pytest
import redis

from features.store import connection
from tests.conftest import Server
from tests.service.conftest import counted, running
from tests.service.feast_shop import NOW, answering, make_feast_shop
from tests.service.test_feast_api import Reads, sdk

SOON = NOW + timedelta(seconds=30)


@pytest.fixture(scope="module")
def feast_shop(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_feast_shop(tmp_path_factory.mktemp("feastpush"), valkey.address)


@pytest.fixture
async def reads(feast_shop: Path) -> AsyncIterator[Reads]:
    async with answering(feast_shop, empty_lists="list") as (url, desk), aiohttp.ClientSession() as session:
        yield Reads(feast_shop, url, desk, session)


def every_type(shop_id: int, at: datetime = SOON, **changes: Any) -> dict[str, list[Any]]:
    """A row as JSON has it."""
    row = {"shop_id": shop_id, "at": at.isoformat(), "text": "pushed", "small": -7, "large": 2**62, "single": 1.5,
           "double": 0.1, "truth": True, "raw": "AP8=", "seen": 1_795_000_000, "texts": ["x", "é"], "larges": [1, -2],
           "doubles": [0.5], "truths": [False]}  # fmt: skip
    return {name: [value] for name, value in (row | changes).items()}


async def test_what_is_pushed_is_what_feast_reads(reads: Reads) -> None:
    """Values of every common type, by the SDK from Redis and by us."""
    done = await reads.post("/push", {"push_source_name": "every_type_push", "df": every_type(900)})
    assert done == {"written": 1, "older": 0}
    features, entities = reads.all_of("every_type"), {"shop_id": [900]}
    ours = await reads.ours(features, entities)
    assert ours == await reads.feasts(features, entities)
    sent = every_type(900)
    assert {name: [one[0] for one in ours[name]] for name in ours} == {name: sent[name] for name in ours}


async def test_the_hash_is_byte_for_byte_that_which_feast_writes(reads: Reads, feast_shop: Path) -> None:
    frame = every_type(901, raw=None)
    await reads.post("/push", {"push_source_name": "every_type_push", "df": frame})
    theirs = pd.DataFrame({**frame, "shop_id": [902], "at": [SOON], "seen": [pd.Timestamp(1_795_000_000, unit="s")]})
    await sdk(reads.direct.push, "every_type_push", theirs.astype({"raw": object}))
    from features.entitykeys import key_head, key_values

    with redis.Redis(**connection(feast_shop / "feature_repo"), protocol=2) as client:
        hashes = [
            client.hgetall(key_head(["shop_id"]) + key_values("INT64", [one], "")[0][0] + b"feastapi")
            for one in (901, 902)
        ]
    assert hashes[0] and hashes[0] == hashes[1]


async def test_a_row_that_is_older_or_as_old_changes_nothing(reads: Reads) -> None:
    """In Feast's store as among the rows of one push, in whatever order they come."""
    source = {"push_source_name": "every_type_push"}
    before = await reads.post("/push", source | {"df": every_type(903)})
    frame = {
        name: [*every_type(903, SOON - timedelta(seconds=1), text="older")[name], *column]
        for name, column in every_type(903, text="as old").items()
    }
    assert (before, await reads.post("/push", source | {"df": frame})) == (
        {"written": 1, "older": 0}, {"written": 0, "older": 2}
    )  # fmt: skip
    twice = {
        name: [*every_type(903, SOON + timedelta(microseconds=2), text="newest")[name], *column]
        for name, column in every_type(903, SOON + timedelta(microseconds=1), text="newer").items()
    }
    assert await reads.post("/push", source | {"df": twice}) == {"written": 1, "older": 1}
    assert (await reads.ours(["every_type:text"], {"shop_id": [903]}))["text"][0][0] == "newest"


async def test_a_push_of_a_stock_sdk_is_read_at_once(reads: Reads) -> None:
    """It comes as /write-to-online-store, with the event time under Feast's own name for it, which Feast's server does
    not read where the source has another."""
    frame = pd.DataFrame({"user_id": ["u1", "fresh"], "shop_id": [0, 77], "at": [SOON, SOON], "visits": [1000, 1001]})
    await sdk(reads.remote.push, "pair_push", frame)
    found = await reads.ours(["pair:visits"], {"user_id": ["u1", "fresh"], "shop_id": [0, 77]})
    assert [one[:2] for one in found["visits"]] == [(1000, "PRESENT"), (1001, "PRESENT")]
    theirs = await reads.feasts(["pair:visits"], {"user_id": ["u1", "fresh"], "shop_id": [0, 77]})
    assert theirs == found


async def test_a_view_without_an_entity_is_written_and_read(reads: Reads) -> None:
    await reads.post("/push", {"push_source_name": "world_push", "df": {"at": [SOON.isoformat()], "sales": [2.5]}})
    entities = {"user_id": ["u1", "u2"]}
    ours = await reads.ours(["world:sales", "user_profile:country"], entities)
    assert ours == await reads.feasts(["world:sales", "user_profile:country"], entities)
    assert [one[0] for one in ours["sales"]] == [2.5, 2.5]


async def test_those_who_watch_freshness_are_told(reads: Reads, feast_shop: Path) -> None:
    at = SOON + timedelta(seconds=5)
    await reads.post("/push", {"push_source_name": "every_type_push", "df": every_type(904, at)})
    with redis.Redis(**connection(feast_shop / "feature_repo"), protocol=2) as client:
        assert client.zscore("endcap:feastapi:newest", "every_type") == at.timestamp() * 1e6


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"small": 2**31}, "df.small[0]", "32 bits"), ({"text": 5}, "df.text[0]", "Expected a string"),
        ({"at": "soon"}, "df.at[0]", "Expected a time"), ({"at": 5}, "df.at[0]", "Expected"),
        ({"at": "1960-01-01"}, "df.at[0]", "after 1970"), ({"shop_id": None}, "df.shop_id[0]", "Expected an integer"),
    ],
)  # fmt: skip
async def test_a_bad_row_is_told_with_its_place_and_nothing_is_written(
    reads: Reads, changes: dict[str, Any], path: str, said: str
) -> None:
    frame = {name: [changes.get(name, column[0]), *column] for name, column in every_type(905).items()}
    found = await reads.post("/push", {"push_source_name": "every_type_push", "df": frame}, 422)
    assert [one["path"] for one in found["errors"]] == [path] and said in found["detail"]
    assert (await reads.ours(["every_type:text"], {"shop_id": [905]}))["text"][0][1] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("frame", "path"),
    [
        ({}, "df"), ({"shop_id": []}, "df"), ({"shop_id": [1], "at": []}, "df"),
        ({"shop_id": [1], "at": ["2026-01-01"]}, "df.text"), ({"at": ["2026-01-01"]}, "df.shop_id"),
        ({"shop_id": [1]}, "df.event_timestamp"),
    ],
)  # fmt: skip
async def test_columns_that_are_missing_are_told(reads: Reads, frame: dict[str, list[Any]], path: str) -> None:
    found = await reads.post("/push", {"push_source_name": "every_type_push", "df": frame}, 422)
    assert [one["path"] for one in found["errors"]] == [path]


async def test_what_is_not_done_is_said_and_nothing_is_written(reads: Reads) -> None:
    for to in ("offline", "online_and_offline"):
        asked = {"push_source_name": "every_type_push", "df": every_type(906), "to": to}
        assert "only the online store" in (await reads.post("/push", asked, 501))["detail"]
    assert (await reads.ours(["every_type:text"], {"shop_id": [906]}))["text"][0][1] == "NOT_FOUND"
    found = await reads.post("/push", {"push_source_name": "every_type_push", "df": {}, "to": "nowhere"}, 422)
    assert found["errors"][0]["path"] == "to"
    asked = {"feature_view_name": "doubled", "df": {"twice": [1.0]}}
    assert "on-demand" in (await reads.post("/write-to-online-store", asked, 501))["detail"]


async def test_a_source_or_a_view_that_there_is_not_is_told_in_feasts_form(reads: Reads) -> None:
    from feast.errors import FeastError

    for path, name, status, kind in [
        ("/push", "push_source_name", 422, "PushSourceNotFoundException"),
        ("/write-to-online-store", "feature_view_name", 404, "FeatureViewNotFoundException"),
    ]:
        error = FeastError.from_error_detail(await reads.post(path, {name: "nope", "df": {"a": [1]}}, status))
        assert type(error).__name__ == kind and "nope" in str(error)


async def test_nothing_is_written_where_pushing_is_not_open_or_too_much_at_once(feast_shop: Path) -> None:
    for settings, status, said in [({"push": False}, 403, "feast_api.push"), ({"max_push_rows": 1}, 422, "max_push")]:
        async with answering(feast_shop, **settings) as (url, desk), aiohttp.ClientSession() as session:
            reads = Reads(feast_shop, url, desk, session)
            frame = {name: column * 2 for name, column in every_type(907).items()}
            for path, name in [("/push", "push_source_name"), ("/write-to-online-store", "feature_view_name")]:
                sent = {name: "every_type_push" if path == "/push" else "every_type", "df": frame}
                assert said in (await reads.post(path, sent, status))["detail"]
            assert (await reads.ours(["every_type:text"], {"shop_id": [907]}))["text"][0][1] == "NOT_FOUND"


async def test_a_hash_lives_as_long_as_feast_is_told_to_let_it(reads: Reads, feast_shop: Path) -> None:
    import msgspec

    from features.entitykeys import key_head, key_values

    reads.desk.offer = msgspec.structs.replace(reads.desk.offer, expire_s=1000)
    await reads.post("/push", {"push_source_name": "every_type_push", "df": every_type(908)})
    with redis.Redis(**connection(feast_shop / "feature_repo"), protocol=2) as client:
        left = client.ttl(key_head(["shop_id"]) + key_values("INT64", [908], "")[0][0] + b"feastapi")
    assert 0 < left <= 1000


async def test_the_api_is_closed_where_endcap_toml_does_not_open_it(deployment: Path) -> None:
    async with running(deployment) as client:
        asked = {"entities": {"user_id": ["u1"]}, "features": ["user_profile:country"]}
        assert "feast_api.enabled" in (await client.post("/get-online-features", asked, 403))["detail"]
        _, scrape = await client.get("/metrics")
        assert counted(scrape, "endcap_requests_total", endpoint="/get-online-features", status="403") == 1
