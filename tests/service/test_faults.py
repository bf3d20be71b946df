"""What storefronts may rely on when something is broken, slow, hostile or gone."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from features.errors import FeatureStoreError
from features.intake import durability
from features.pipeline import Pipeline, encode
from ranking.errors import BundleError
from service.app import App
from service.config import read_config
from service.valkey import EmbeddedValkey, free_port
from tests.service.conftest import Client, save_untrained
from tests.service.test_http import ids, shopper_statuses


async def test_when_the_store_fails_the_answer_goes_on_with_defaults(client: Client) -> None:
    reader = client.app.reader
    assert reader is not None

    async def failing(user_id: str) -> Any:
        raise FeatureStoreError("Redis: gone")

    reader.read = failing  # type: ignore[method-assign]
    answer = await client.recommend(user_id="u1", count=5)
    assert answer["degraded"] == ["features"] and len(answer["items"]) == 5
    assert shopper_statuses(answer) == {"not_read"}


async def test_without_a_store_events_and_item_changes_are_told_to_come_again(client: Client) -> None:
    """503 with Retry-After and what to do; and what is in the store cannot be shown."""
    gone = Pipeline("127.0.0.1", free_port())
    intake, insight = client.app.api.intake, client.app.api.insight
    intake.events.intake.pipeline = gone  # type: ignore[union-attr]
    intake.items.publisher.pipeline = gone  # type: ignore[union-attr]
    insight.reader.pipeline = gone  # type: ignore[union-attr]
    row = {"event_id": "gone", "user_id": "u1", "item_id": "i00001", "type": "view"}
    for path, body in (("events", {"events": [row]}), ("items", {"items": [{"item_id": "i00001", "price": 1.0}]})):
        problem = await client.post(f"/v1/{path}", body, 503)
        assert problem["type"] == "urn:endcap:problem:not-stored" and "Send" in problem["detail"]
        assert client.headers["Retry-After"] == "1"
    status, text = await client.get("/v1/features/user/u1")
    assert status == 503 and "store-unavailable" in text
    await gone.close()


async def test_a_redis_that_may_lose_what_it_accepted_is_told_at_the_start(tmp_path: Path) -> None:
    """And one that has every write on disk first is not."""
    server = EmbeddedValkey(tmp_path, "127.0.0.1", free_port())
    server.start()
    pipeline = Pipeline(server.host, server.port)
    assert await durability(pipeline) is None
    await pipeline.execute(encode(b"CONFIG", b"SET", b"appendfsync", b"everysec"))
    assert "appendonly yes, appendfsync everysec" in (await durability(pipeline) or "")
    await pipeline.close()
    server.stop()


async def test_when_the_store_is_slow_the_answer_goes_on_within_its_share(client: Client) -> None:
    reader = client.app.reader
    assert reader is not None

    async def slow(user_id: str) -> Any:
        await asyncio.sleep(60)

    reader.read = slow  # type: ignore[method-assign]
    answer = await client.recommend(user_id="u1", session={"item_ids": ["i00001"]}, count=5)
    assert answer["degraded"] == ["features"] and len(answer["items"]) == 5


async def test_a_service_that_is_still_loading_is_alive_and_not_ready(client: Client) -> None:
    client.app.api.answers.recommender = None
    assert (await client.get("/healthz"))[0] == 200
    status, text = await client.get("/readyz")
    assert status == 503 and "being loaded" in text
    await client.recommend(503, user_id="u1")
    assert client.headers["Retry-After"] == "1"


async def test_five_hundred_concurrent_requests_each_get_their_own_answer(client: Client) -> None:
    expected = {f"u{i}": ids(await client.recommend(user_id=f"u{i}", count=5)) for i in range(12)}
    assert client.app.api.answers.recommender is not None

    async def one(i: int) -> None:
        async with client.session.post(
            f"{client.url}/v1/recommendations", json={"user_id": f"u{i % 12}", "count": 5}
        ) as response:
            answer = await response.json()
            if response.status == 503:  # more than can be answered in time
                assert answer["type"] == "urn:endcap:problem:overloaded" and response.headers["Retry-After"] == "1"
                return
            assert ids(answer) == expected[f"u{i % 12}"]

    await asyncio.gather(*(one(i) for i in range(500)))


async def test_a_client_that_goes_away_harms_nobody(client: Client) -> None:
    tasks = [asyncio.create_task(client.recommend(user_id="u1")) for _ in range(50)]
    await asyncio.sleep(0.005)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, dict | asyncio.CancelledError | aiohttp.ClientError) for one in results)
    assert len((await client.recommend(user_id="u1"))["items"]) == 20


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"context": {"orders": 1' + b"0" * 400 + b"}}", 422),
        (b'{"explain": true, "context": {"orders": 1180591620717411303424}}', 422),
        (b'{"count": "x", "\\ud800": 1}', 400),
        (b'{"user_id": "\\ud800"}', 400),
        (b"{" + b",".join(b'"%d":1' % i for i in range(50_000)) + b',"7":1}', 422),
    ],
)
async def test_hostile_bodies_are_refused_briefly(client: Client, body: bytes, status: int) -> None:
    """Numbers beyond 64 bits, lone surrogates, and a key twice among 50,000: no 500, no long answer."""
    headers = {"Content-Type": "application/json"}
    problem = await client.post("/v1/recommendations", None, None, data=io.BytesIO(body), headers=headers)
    assert problem["status"] in (status, 400) and len(json.dumps(problem)) < 20_000


async def test_a_body_that_is_not_what_its_encoding_says_is_malformed(client: Client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    await client.post("/v1/recommendations", None, 400, data=io.BytesIO(b'{"count": 5}'), headers=headers)


async def test_an_older_version_that_fits_feast_no_more_is_left_out_and_said(deployment: Path, tmp_path: Path) -> None:
    """The version that answers must fit; one that is only kept for those who insist on it may not keep us down."""
    shutil.copytree(deployment, tmp_path / "d")
    models = tmp_path / "d" / "models"
    shutil.rmtree(models)
    save_untrained(models, max_age_s={"user_profile": 1.0})
    app = App(tmp_path / "d", read_config(tmp_path / "d"))
    await app.listen("127.0.0.1", 0)
    with pytest.raises(BundleError, match="trained with max age 1"):
        await app.load()
    await app.stop()
    save_untrained(models)
    app = App(tmp_path / "d", read_config(tmp_path / "d"))
    await app.listen("127.0.0.1", 0)
    await app.load()
    assert app.versions is not None and [one.version for one in app.versions.all()] == ["2"]
    assert len(app.notices) == 1 and "default/1: not loaded" in app.notices[0]
    await app.stop()
