"""Following items' counts: each that is counted is handed over, once is enough, and none is lost."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from features import popularity as module
from features.events import Event
from features.keys import Keys
from features.popularity import Counted, Popularity, counted
from tests.conftest import Server
from tests.features.streams import Store

KNOWN = [f"i{n:05d}" for n in range(40)]
NOW_US = 1_795_000_000_000_000


class Follower:
    """What one worker was told."""

    def __init__(self, store: Store, known: Sequence[str] = KNOWN) -> None:
        self.told: list[Counted] = []
        self.popularity = Popularity(store.pipeline(), store.project, lambda: known, every_s=0.02)
        self.popularity.start(self.told.extend)

    async def until(self, **counts: int) -> None:
        """Until the newest word on each item's events of 30 days is so."""
        end = time.monotonic() + 10
        while {one.item_id: one.counts["events_30d"] for one in self.told} != counts:
            assert time.monotonic() < end, self.told
            await asyncio.sleep(0.01)


@pytest.fixture
async def store(valkey: Server) -> AsyncIterator[Store]:
    yield Store(valkey.host, valkey.port, "p" + secrets.token_hex(6))


def bought(item: str, times: int, first: int = 0) -> list[Event]:
    return [Event(f"{item}-{n}", f"u{n}", item, "purchase", NOW_US + n, None, 1.0) for n in range(first, first + times)]


async def count(store: Store, events: Sequence[Event]) -> None:
    await store.send(events)
    await store.drain()


async def test_what_is_counted_before_and_after_a_start_is_handed_over(store: Store) -> None:
    await count(store, bought("i00001", 3))
    one = Follower(store)
    await one.until(i00001=3)
    found = one.told[-1]
    assert found.at == pytest.approx(NOW_US / 1e6, abs=1e-3) and found.counts["purchases_7d"] == 3
    await count(store, bought("i00001", 2, 3) + bought("new", 4))
    await one.until(i00001=5, new=4)
    await asyncio.sleep(0.2)
    assert len(one.told) <= 4, "what nobody counts is not read again"
    await one.popularity.stop()


async def test_more_items_than_are_asked_for_in_one_look_are_all_handed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many items in one script, of which a look takes a few."""
    monkeypatch.setattr(module, "MOST", 7)
    one = Follower(store)
    await one.popularity.loaded.wait()
    await count(store, [event for item in KNOWN for event in bought(item, 2)])
    await one.until(**dict.fromkeys(KNOWN, 2))
    await one.popularity.stop()


async def test_no_more_ids_are_taken_than_are_asked_for_in_one_look(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million of them are never in memory together."""
    monkeypatch.setattr(module, "MOST", 7)
    taken, seen = 0, []

    def ids() -> Iterator[str]:
        nonlocal taken
        for taken, one in enumerate(KNOWN, 1):  # noqa: B007 - how far it came
            yield one

    popularity = Popularity(store.pipeline(), store.project, ids)

    async def read(some: Sequence[str]) -> list[Counted]:
        seen.append((len(some), taken))
        return []

    monkeypatch.setattr(popularity, "read", read)
    await popularity.hand_over(ids(), lambda found: None)
    assert seen == [*((7, 7 * n) for n in range(1, 6)), (5, 40)]
    await popularity.stop()


async def test_who_has_not_looked_for_long_reads_all_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNSEEN_S", -1.0)
    one = Follower(store)
    await one.popularity.loaded.wait()
    await count(store, bought("i00002", 2))
    store.client.delete(Keys(store.project).counted)
    await one.until(i00002=2)
    await one.popularity.stop()


async def test_the_set_of_what_was_counted_is_in_order_and_bounded(store: Store) -> None:
    """Its times only grow, also where the server's clock was ahead, and what is ten minutes old goes."""
    key = Keys(store.project).counted
    await count(store, bought("i00001", 1))
    ((_, before),) = zscores(store, key)
    store.client.zadd(key, {"old": before - 601e6, "ahead": before + 3600e6})
    await count(store, bought("i00002", 1) + bought("i00003", 1))
    scores = dict(zscores(store, key))
    assert scores["ahead"] < min(scores["i00002"], scores["i00003"]) and scores["i00002"] != scores["i00003"]
    assert "old" not in scores


def zscores(store: Store, key: bytes) -> list[tuple[str, float]]:
    found: Any = store.client.zrange(key, 0, -1, withscores=True)
    return [(name.decode(), score) for name, score in found]


async def test_what_cannot_be_read_is_passed_over() -> None:
    assert counted("i", [None, *[None] * 5]) is None
    assert counted("i", [b"\x99", *[None] * 5]) is None
    assert counted("i", [b"\x08\x05", b"\x20\x07", *[None] * 4]) == Counted("i", 5.0, {"events_30d": 7})


async def test_who_starts_over_reads_all_again(store: Store) -> None:
    await count(store, bought("i00001", 3))
    one = Follower(store)
    await one.until(i00001=3)
    one.told.clear()
    one.popularity.start_over()
    await one.until(i00001=3)
    await one.popularity.stop()
