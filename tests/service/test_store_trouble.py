"""A store that is slow, silent or gone costs a request features, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from features.errors import FeatureStoreError
from features.pipeline import Pipeline, encode
from features.user import UserFeatures
from service.budget import Shares
from service.shopper import PROBE_S, Shoppers
from service.trace import Trace
from service.wire import RecommendRequest
from tests.service.conftest import Client
from tests.service.test_deadlines import SHORT, ask, recommender
from tests.service.test_http import ids


async def test_a_shopper_who_was_read_before_keeps_those_features_when_the_store_fails(client: Client) -> None:
    """The same answer, its features' age growing, and `degraded` says that they are the last known."""
    before = await ask(client, user_id="u1", count=5)

    async def failing(user_id: str) -> Any:
        raise FeatureStoreError("Redis: gone")

    client.app.reader.read = failing  # type: ignore[union-attr, method-assign]
    after = await ask(client, user_id="u1", count=5)
    assert after["degraded"] == ["last_known"] and ids(after) == ids(before)
    for view, found in before["features"].items():
        assert after["features"][view]["status"] == found["status"]
        if found["status"] == "present":
            assert after["features"][view]["age_s"] >= found["age_s"]
    assert (await ask(client, user_id="u2", count=5))["degraded"] == ["features"]


async def test_a_remembered_row_that_has_become_too_old_is_not_used(client: Client) -> None:
    reader = client.app.reader
    assert reader is not None
    assert (await reader.read("u1")).known
    known = reader.now
    reader.now = lambda: known() + 400 * 86400.0
    found = reader.last_known("u1")
    assert found is not None and {one.status for one in found.views.values()} == {"outside_max_age"}
    assert not found.values and reader.last_known("never read") is None


async def test_as_many_shoppers_are_remembered_as_the_setting_says(client: Client) -> None:
    reader = client.app.reader
    assert reader is not None
    reader.remember = 2
    for user in ("u1", "u2", "u1", "u3"):
        await reader.read(user)
    assert [reader.last_known(user) is not None for user in ("u1", "u2", "u3")] == [True, False, True]


@contextmanager
def black_hole() -> Iterator[int]:
    """A server that accepts connections and never answers; its port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        yield listening.getsockname()[1]


async def test_a_store_that_accepts_and_never_answers_costs_features_and_nothing_else(client: Client) -> None:
    """200 each time; and when the store is back, so are the features, without a restart."""
    reader = client.app.reader
    assert reader is not None
    whole = reader.pipeline
    with black_hole() as port:
        reader.pipeline = Pipeline("127.0.0.1", port)
        for _ in range(3):
            answer = await ask(client, headers=SHORT, user_id="u7", session={"item_ids": ["i00001"]}, count=5)
            assert "features" in answer["degraded"] and len(answer["items"]) == 5
        assert recommender(client).shoppers.suspect
        await reader.pipeline.close()
    reader.pipeline = whole
    async with asyncio.timeout(10):
        while (await ask(client, user_id="u7", count=5))["degraded"]:
            await asyncio.sleep(0.01)
    assert not recommender(client).shoppers.suspect


class Store:
    """A store that takes as long as it is told; a test turns its clock, and looks at how long it was waited for."""

    def __init__(self) -> None:
        self.takes_s, self.waited = 0.0, list[float]()

    async def read(self, user_id: str) -> UserFeatures:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.waited.append(loop.time() - began)
        return self.nothing()

    def last_known(self, user_id: str) -> None:
        return None

    def nothing(self) -> UserFeatures:
        return UserFeatures({}, {})


class NoEvents:
    def check(self, token: str) -> None:
        pass

    async def wait(self, token: str, timeout_s: float) -> bool:
        return True


async def test_a_store_that_let_one_wait_in_vain_is_not_waited_for_so_long_again() -> None:
    store = Store()
    shoppers = Shoppers(store, NoEvents(), Shares(), timeout_s=10.0)
    store.takes_s = 60.0
    for _ in range(2):
        found = await shoppers.read(RecommendRequest(user_id="u1"), 0.2, Trace(), None)
        assert found.degraded == ["features"]
    assert store.waited[1] < store.waited[0] / 2


async def test_a_store_that_is_back_but_slower_than_it_was_is_found_to_be_back() -> None:
    """What was usual is forgotten while it is silent: somebody must wait for it longer now and then."""
    store = Store()
    shoppers = Shoppers(store, NoEvents(), Shares(), timeout_s=10.0)
    store.takes_s = 60.0
    await shoppers.read(RecommendRequest(user_id="u1"), 0.1, Trace(), None)
    assert shoppers.suspect
    store.takes_s = 0.02  # ten times what it is given while it is suspect
    async with asyncio.timeout(10):
        while shoppers.suspect:
            await shoppers.read(RecommendRequest(user_id="u1"), 0.5, Trace(), None)
            await asyncio.sleep(PROBE_S / 10)
    assert (await shoppers.read(RecommendRequest(user_id="u1"), 0.5, Trace(), None)).degraded == []


async def test_a_store_that_is_slow_is_waited_for_and_makes_nobody_refused(client: Client) -> None:
    """30 ms more for each read, twenty at a time: whole answers, and the limit does not shrink for it."""
    one, reader = recommender(client), client.app.reader
    assert reader is not None
    known, before = reader.read, one.limiter.limit.size

    async def slow(user_id: str) -> Any:
        await asyncio.sleep(0.03)
        return await known(user_id)

    reader.read = slow  # type: ignore[method-assign]
    for _ in range(5):
        answers = await asyncio.gather(*(ask(client, user_id=f"u{i % 12}", count=5) for i in range(10)))
        assert [answer["degraded"] for answer in answers] == [[]] * 10
    assert one.limiter.limit.size >= before


async def test_connections_to_the_store_that_are_killed_cost_nobody_an_error(client: Client) -> None:
    """`CLIENT KILL` of every connection, again and again, under requests."""
    killer = client.app.pipeline()

    async def kill() -> None:
        for _ in range(5):
            await killer.execute(encode(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"))
            await asyncio.sleep(0.02)

    killing = asyncio.create_task(kill())
    while not killing.done():
        answers = await asyncio.gather(*(ask(client, user_id=f"u{i % 12}", count=5) for i in range(10)))
        assert all(len(answer["items"]) == 5 for answer in answers)
    await killing
    assert (await ask(client, user_id="u1", count=5))["degraded"] == []
