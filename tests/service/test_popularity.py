"""Live popularity end to end: what is bought now leads `popular` in every worker's answers about a second later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Client, running
from tests.service.test_events import event, send
from tests.service.test_http import ids

WITHIN_S = 5.0


async def until(holds: Any) -> float:
    """How long it took."""
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < WITHIN_S, "not within a few seconds"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


@pytest.fixture
async def other(deployment: Path, client: Client) -> AsyncIterator[Client]:
    """A second process's worth of the service, on the same store."""
    async with running(deployment) as one:
        yield one


async def popular(client: Client, count: int = 1) -> dict[str, Any]:
    """Without the item that other tests of this module's deployment send thousands of events about."""
    return await client.recommend(placement="popular", count=count, exclude_item_ids=[event()["item_id"]])


async def test_a_burst_of_purchases_leads_popular_in_every_worker_within_seconds(
    client: Client, other: Client, deployment: Path
) -> None:
    """Also in one that starts afterwards, and the age of the item's statistics is that of the burst."""
    burst = ids(await popular(client, 150))[-1]

    async def leads() -> bool:
        return {burst} == {ids(await popular(one))[0] for one in (client, other)}

    assert not await leads()
    many = [event(user_id=f"b{n}", item_id=burst, type="purchase", value=1.0) for n in range(200)]
    assert (await send(client, *many))["accepted"] == 200
    await until(leads)
    answer = await popular(client)
    assert answer["features"]["item_stats"]["age_s"] < 30
    async with running(deployment) as late:
        assert ids(await popular(late)) == [burst]
    assert client.app.versions is not None
    for bundle in client.app.versions.all():
        items, row = bundle.items, bundle.items.row_of[burst]
        place = next(n for n, one in enumerate(bundle.manifest.item.dense) if one.source == "purchases_7d")
        assert items.popularity[row] >= 400 and items.dense[row, place] == items.dense[:, place].max()


async def test_a_batch_that_is_materialized_anew_is_read_by_a_running_worker(client: Client) -> None:
    """Whoever writes all statistics says so, and the worker reads them all."""
    from features.keys import Keys
    from features.layout import encode_int64, encode_timestamp, feature_field, key_maker, timestamp_field
    from features.pipeline import encode
    from features.scripts import ALL_COUNTED

    assert client.app.reader is not None and client.app.versions is not None
    items = client.app.versions.resolve("default").items
    row, pipeline = items.row_of["i00021"], client.app.reader.pipeline
    fields = [timestamp_field("item_stats"), encode_timestamp(5_000_000), feature_field("item_stats", "events_30d"),
              encode_int64(77), feature_field("item_stats", "purchases_30d"), encode_int64(3)]  # fmt: skip
    await pipeline.execute(encode(b"HSET", key_maker("deployment", "item_id")("i00021"), *fields))
    await pipeline.execute(encode(b"EVAL", ALL_COUNTED, b"1", Keys("deployment").counted))

    async def read() -> bool:
        return items.stats_at[row] == 5.0 and items.popularity[row] == 80

    await until(read)
