"""Item changes over real HTTP: in every worker's answers within a second, one bad row at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from features.catalogue import Catalogue
from features.pipeline import Pipeline
from features.shop import read_shop
from features.store import connection
from service.app import App
from service.config import read_config
from tests.service.conftest import Client, running
from tests.service.test_http import ids


async def change(client: Client, *rows: Any, status: int = 202) -> dict[str, Any]:
    return await client.post("/v1/items", {"items": list(rows)}, status)


async def until(holds: Any, within_s: float = 1.0) -> None:
    end = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < end, "not within a second"
        await asyncio.sleep(0.01)


@pytest.fixture
async def other(deployment: Path, client: Client) -> AsyncIterator[Client]:
    """A second process's worth of the service, on the same store."""
    async with running(deployment) as one:
        yield one


async def test_a_sold_out_item_is_gone_from_every_workers_answers_within_a_second(
    client: Client, other: Client
) -> None:
    first = ids(await client.recommend(user_id="u3"))[0]
    assert await change(client, {"item_id": first, "in_stock": False}) == {
        "accepted": 1, "rejected": [], "rejected_count": 0,
    }  # fmt: skip

    async def gone() -> bool:
        answers = [await one.recommend(user_id="u3") for one in (client, other)]
        return not any(first in ids(answer) for answer in answers)

    await until(gone)
    assert (await change(client, {"item_id": first, "in_stock": True}))["accepted"] == 1

    async def back() -> bool:
        return first in ids(await other.recommend(user_id="u3"))

    await until(back)


async def test_a_new_item_is_answered_without_a_retrain_and_its_source_says_so(
    client: Client, deployment: Path
) -> None:
    new = f"new-{time.time_ns()}"
    said = {"item_id": new, "title": "A new one", "category": "fresh", "price": 7.25}
    await change(client, said)

    async def there() -> bool:
        answer = await client.recommend(user_id="u3", filter={"category": ["fresh"]}, count=5, explain=True)
        found = {item["item_id"]: item for item in answer["items"]}
        if new in found:
            assert found[new]["source"] == "cold_start"
            assert found[new]["explain"]["title"] == "A new one" and found[new]["explain"]["price"] == 7.25
        return new in found

    await until(there)
    late = App(deployment, read_config(deployment))  # one that starts afterwards learns of it, too
    await late.listen("127.0.0.1", 0)
    await late.load()

    async def known() -> bool:
        assert late.versions is not None
        return all(new in bundle.items.row_of for bundle in late.versions.all())

    await until(known)
    await late.stop()
    await change(client, {"item_id": new, "removed": True})

    async def gone() -> bool:
        return (await client.post("/v1/rank", {"item_ids": [new, "i00001"]}))["missing_item_ids"] == [new]

    await until(gone)


async def there(client: Client, *items: str) -> list[bool]:
    """Which of the items a worker has in its catalogue."""
    missing = (await client.post("/v1/rank", {"item_ids": [*items, "i00001"]}))["missing_item_ids"]
    return [one not in missing for one in items]


async def test_an_item_that_was_removed_is_brought_back_by_saying_so(
    client: Client, other: Client, deployment: Path
) -> None:
    """One of the model's and a new one, by a worker that saw them go and by one that started afterwards."""
    new, learned = f"new-{time.time_ns()}", "i00023"
    await change(client, {"item_id": new, "title": "A new one", "category": "fresh"})

    async def known() -> bool:
        return all(await there(client, new))

    await until(known)
    for back in (client, "late"):
        await change(client, {"item_id": new, "removed": True}, {"item_id": learned, "removed": True})

        async def gone() -> bool:
            return not any([*await there(client, new, learned), *await there(other, new, learned)])

        await until(gone)
        rows = [{"item_id": one, "removed": False} for one in (new, learned)]
        if isinstance(back, str):
            async with running(deployment) as late:
                assert await there(late, new, learned) == [False, False]
                assert await change(late, *rows) == {"accepted": 2, "rejected": [], "rejected_count": 0}
        else:
            assert (await change(back, *rows))["accepted"] == 2

        async def again() -> bool:
            return all([*await there(client, new, learned), *await there(other, new, learned)])

        await until(again)
    assert (await change(client, {"item_id": f"never-{new}", "removed": False}))["rejected_count"] == 1


async def test_in_the_default_placement_a_new_item_is_shown_to_every_known_shopper(client: Client) -> None:
    """At the last of twenty places at the latest, however the ranker thinks of what it knows nothing of."""
    new = f"new-{time.time_ns()}"
    await change(client, {"item_id": new, "title": "A new one", "category": "c1", "price": 7.25})
    try:

        async def there() -> bool:
            return not (await client.post("/v1/rank", {"item_ids": [new]}))["missing_item_ids"]

        await until(there)
        for number in range(12):
            answer = await client.recommend(user_id=f"u{number}", placement="home", count=20)
            shown = {item["item_id"]: item["source"] for item in answer["items"]}
            assert shown.get(new) == "cold_start" and len(shown) == 20 and answer["degraded"] == []
            scores = [item["score"] for item in answer["items"]]
            assert scores == sorted(scores, reverse=True)
    finally:
        await change(client, {"item_id": new, "removed": True})


async def test_bad_rows_are_told_one_by_one(client: Client) -> None:
    taken = await change(
        client,
        {"item_id": "i00001", "price": -1},
        {"item_id": "i00001", "prise": 1},
        {"item_id": "brand-new", "price": 1.0},
        {"price": 1},
        {"item_id": "i00001", "attributes": {"colour": "red"}},
        {"item_id": "i00001", "attributes": {"events_24h": 7}},
        {"item_id": "i00002", "price": 3.5},
    )
    assert taken["accepted"] == 1 and taken["rejected_count"] == 6
    said = [one["message"] for one in taken["rejected"]]
    assert [one["index"] for one in taken["rejected"]] == [0, 1, 2, 3, 4, 5]
    assert said[0].startswith("price: ") and "prise: Unknown field" in said[1]
    assert "title: Missing, and the item is a new one" in said[2] and "item_id: Missing" in said[3]
    assert "no model reads it" in said[4] and "no model reads it" in said[5]


async def test_a_batch_that_is_newer_than_a_change_has_the_last_word(client: Client, deployment: Path) -> None:
    """What the shop's import says stands where it came after the change, and not where it came before."""
    items = read_shop(deployment / "data").items
    row = items.slice(5, 1).to_pylist()[0]
    await change(client, {"item_id": row["item_id"], "price": 99.5})
    catalogue = Catalogue(Pipeline(**connection(deployment / "feature_repo")), "deployment")
    try:
        assert await catalogue.reconcile(items, time.time() - 3600) == 0
        assert await catalogue.reconcile(items, time.time() + 1) >= 1
        found = {one.item_id: one.facts for one in (await catalogue.load())[0]}
        assert found[row["item_id"]]["price"] == row["price"]
        assert await catalogue.reconcile(items, time.time() + 1) == 0
    finally:
        await catalogue.stop()
