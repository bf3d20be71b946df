"""Item changes between the store and one worker: nothing that stands there ends the following, or hides the rest."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest
import redis

from features import catalogue as module
from features.catalogue import Catalogue, Fact, ItemChange
from features.pipeline import Pipeline
from tests.conftest import Server


class Shop:
    """One project's item changes, and a worker that has followed them so far."""

    def __init__(self, server: Server) -> None:
        self.client: Any = redis.Redis(host=server.host, port=server.port, protocol=2)
        self.project = "c" + secrets.token_hex(6)
        self.publisher = Catalogue(Pipeline(server.host, server.port), self.project)
        self.follower = Catalogue(Pipeline(server.host, server.port), self.project)
        self.keys = self.follower.keys
        self.seen: dict[str, dict[str, Fact]] = {}

    def apply(self, changes: Sequence[ItemChange]) -> None:
        for one in changes:
            self.seen.setdefault(one.item_id, {}).update(one.facts)

    async def say(self, item_id: str, **facts: Fact) -> None:
        await self.publisher.publish([ItemChange(item_id, facts)])

    async def until(self, holds: Callable[[], Any], within_s: float = 5.0) -> None:
        async with asyncio.timeout(within_s):
            while not holds():
                await asyncio.sleep(0.01)

    async def learns(self, item_id: str, within_s: float = 5.0, **facts: Fact) -> None:
        """The worker knows these facts before long."""
        await self.until(lambda: facts.items() <= self.seen.get(item_id, {}).items(), within_s)


@pytest.fixture
async def shop(valkey: Server) -> AsyncIterator[Shop]:
    one = Shop(valkey)
    yield one
    await one.follower.stop()
    await one.publisher.stop()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"x\0title", b"\xc1"),
        (b"x\0price", msgspec.msgpack.encode("cheap")),
        (b"x\0at", msgspec.msgpack.encode("today")),
        (b"\xff\0title", msgspec.msgpack.encode("no text")),
        (b"of no item", msgspec.msgpack.encode("x")),
    ],
)
async def test_a_bad_entry_of_the_hash_is_named_and_the_rest_is_handed_over(
    shop: Shop, caplog: pytest.LogCaptureFixture, field: bytes, value: bytes
) -> None:
    await shop.say("a", removed=True)
    await shop.say("x", in_stock=False)
    shop.client.hset(shop.keys.catalogue, field, value)
    shop.follower.start(shop.apply)
    await shop.learns("a", removed=True)
    await shop.learns("x", in_stock=False)
    await shop.say("b", removed=True)
    await shop.learns("b", removed=True)
    assert f"{field!r} of the hash of item changes cannot be used" in caplog.text


async def test_a_bad_entry_of_the_stream_is_named_and_the_next_ones_are_handed_over(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.follower.start(shop.apply)
    await shop.say("a", price=1.0)
    await shop.learns("a", price=1.0)
    bad = [b"\xc1", msgspec.msgpack.encode(["b", {"price": "cheap"}]), msgspec.msgpack.encode(7)]
    ids = [shop.client.xadd(shop.keys.items, {"c": one}) for one in bad]
    await shop.say("c", removed=True)
    await shop.learns("c", removed=True)
    assert "b" not in shop.seen
    for one in ids:
        assert f"entry {one.decode()} of the item stream cannot be used" in caplog.text


async def test_a_change_that_cannot_be_applied_loses_nobody_elses(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    def apply(changes: Sequence[ItemChange]) -> None:
        if any(one.item_id == "bad" for one in changes):
            raise KeyError("planted")
        shop.apply(changes)

    for one in ("a", "bad", "b"):
        await shop.say(one, price=1.0)
    shop.follower.start(apply)
    await shop.learns("a", price=1.0)
    await shop.learns("b", price=1.0)
    await shop.say("c", price=2.0)
    await shop.learns("c", price=2.0)
    assert "the change of item 'bad' cannot be applied" in caplog.text


async def test_nothing_unexpected_ends_the_following(
    shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, after = 3, Catalogue.after

    async def stumbling(self: Catalogue, at: bytes) -> Any:
        nonlocal failing
        failing -= 1
        if failing >= 0:
            raise RuntimeError("planted")
        return await after(self, at)

    monkeypatch.setattr(Catalogue, "after", stumbling)
    shop.follower.start(shop.apply)
    await shop.until(lambda: failing < 0)
    await shop.say("a", removed=True)
    await shop.learns("a", removed=True)
    assert "item changes wait" in caplog.text and "planted" in caplog.text


async def test_who_fell_behind_a_trimmed_stream_reads_the_hash_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is busy elsewhere while more changes come than the stream keeps: it learns of the first, too."""
    monkeypatch.setattr(module, "COUNT", 1)
    held, after = asyncio.Event(), Catalogue.after

    async def held_up(self: Catalogue, at: bytes) -> Any:
        await held.wait()
        return await after(self, at)

    monkeypatch.setattr(Catalogue, "after", held_up)
    await shop.say("before", price=1.0)
    shop.follower.start(shop.apply)
    await shop.learns("before", price=1.0)
    await shop.say("lost", removed=True)
    for n in range(5):
        await shop.say(f"i{n}", price=float(n))
    shop.client.xtrim(shop.keys.items, maxlen=2, approximate=False)
    held.set()
    await shop.learns("i4", price=4.0)
    assert shop.seen["lost"]["removed"] is True
    await shop.say("after", price=9.0)
    await shop.learns("after", price=9.0)


async def test_who_starts_over_is_handed_all_so_far_again(shop: Shop) -> None:
    await shop.say("a", removed=True)
    shop.follower.start(shop.apply)
    await shop.learns("a", removed=True)
    shop.seen.clear()
    shop.follower.start_over()
    await shop.learns("a", removed=True)
    await shop.say("b", removed=True)
    await shop.learns("b", removed=True)
