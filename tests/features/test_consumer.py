"""Events become features: those of training, each event once, in whatever order and by whomever."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from feast.protos.feast.types.Value_pb2 import StringList, Value
from google.protobuf.timestamp_pb2 import Timestamp

from features.consumer import Consumer
from features.errors import FeatureStoreError
from features.events import Event, decode_event, encode_event
from features.functions import WINDOWS
from features.history import write_history
from features.keys import GROUP, Keys
from features.layout import (
    decode_timestamp,
    decode_value,
    encode_bool,
    encode_float32,
    encode_int64,
    encode_string,
    encode_strings,
    encode_timestamp,
    feature_field,
    key_maker,
    timestamp_field,
)
from features.pipeline import Pipeline
from features.seed import Seed
from features.shop import Shop
from features.userstate import KEPT, VERSION, UserState
from service.valkey import EmbeddedValkey, free_port
from tests.conftest import Server
from tests.features.streams import Store, distinct_shop, live, once

DAY = WINDOWS["24h"]


@pytest.fixture
def fresh(valkey: Server) -> Callable[[], Store]:
    """A project that nobody has used."""
    return lambda: Store(valkey.host, valkey.port, "p" + secrets.token_hex(6))


def features(store: Store, entity: str, entity_id: str, view: str, names: list[str]) -> dict[str, Any]:
    key = key_maker(store.project, f"{entity}_id")(entity_id)
    raw: Any = store.client.hmget(key, [feature_field(view, name) for name in names])
    return {name: decode_value(one) for name, one in zip(names, raw, strict=True)}


def comparable(hashes: dict[bytes, dict[bytes, bytes]], project: str) -> dict[bytes, dict[bytes, bytes]]:
    return {key.removesuffix(project.encode()): value for key, value in hashes.items()}


@pytest.mark.parametrize("value", [0, 1, -1, 127, 128, 2**62 + 1, -(2**63)])
def test_integers_and_times_are_written_as_feast_writes_them(value: int) -> None:
    assert encode_int64(value) == Value(int64_val=value).SerializeToString()
    at = Timestamp(seconds=abs(value) % 10**10, nanos=(abs(value) % 10**6) * 1000)
    us = at.seconds * 1_000_000 + at.nanos // 1000
    assert encode_timestamp(us) == at.SerializeToString()


@pytest.mark.parametrize("values", [[], ["a"], ["", "naïve ☃", "x" * 300]])
def test_other_values_are_written_as_feast_writes_them(values: list[str]) -> None:
    assert encode_strings(values) == Value(string_list_val=StringList(val=values)).SerializeToString()
    for value in values:
        assert encode_string(value) == Value(string_val=value).SerializeToString()
    for number in (0.0, -1.5, 3.25):
        assert encode_float32(number) == Value(float_val=number).SerializeToString()
    assert [encode_bool(one) for one in (True, False)] == [
        Value(bool_val=one).SerializeToString() for one in (True, False)
    ]


def test_an_event_survives_its_journey_and_garbage_is_no_event() -> None:
    event = Event("e", "ü", "i", "view", 2**53 + 1, None, 1.25)
    assert decode_event(encode_event(event)) == event
    for garbage in (b"", b"\x00", encode_event(event)[:-3], b"\x91\x01"):
        with pytest.raises(ValueError, match="no event"):
            decode_event(garbage)


async def test_what_is_served_is_what_training_computes_from_the_same_history(
    fresh: Callable[[], Store], tmp_path: Path
) -> None:
    """No training-serving skew: every view of every shopper and item, event time included."""
    one, store = distinct_shop(), fresh()
    await once(store, live(one))
    write_history(one.events, one.items, one.users, tmp_path)
    for view, entity in (("user_activity", "user"), ("user_recent", "user")):
        rows = pq.read_table(tmp_path / f"{view}.parquet").to_pylist()
        newest = {row[f"{entity}_id"]: row for row in sorted(rows, key=lambda row: row["event_timestamp"])}
        assert len(newest) == 12
        for who, row in newest.items():
            stamp = row.pop("event_timestamp").timestamp()
            row.pop(f"{entity}_id")
            found = features(store, entity, who, view, list(row))
            assert found.pop("spend_30d", 0.0) == pytest.approx(row.pop("spend_30d", 0.0), rel=1e-6)
            assert found == row
            key = key_maker(store.project, f"{entity}_id")(who)
            there: Any = store.client.hget(key, timestamp_field(view))
            assert decode_timestamp(there) == pytest.approx(stamp, abs=1e-5)


async def test_an_items_counts_are_those_of_training_at_its_newest_event(fresh: Callable[[], Store]) -> None:
    from features.functions import item_popularity
    from features.history import History

    one, store = distinct_shop(), fresh()
    await once(store, live(one))
    batch = History(one.events, one.items, one.users)
    for number, places in enumerate(batch.groups(batch.item, 30)):
        times = batch.times[places]
        wanted = item_popularity(times, batch.purchase[places], times[-1:])
        found = features(store, "item", f"i{number:05d}", "item_stats", list(wanted))
        assert found == {name: int(counts[0]) for name, counts in wanted.items()}
        key = key_maker(store.project, "item_id")(f"i{number:05d}")
        assert store.client.hget(key, timestamp_field("item_stats")) == encode_timestamp(int(times[-1]))


@pytest.mark.parametrize("seed", range(4))
async def test_the_order_of_arrival_changes_nothing(fresh: Callable[[], Store], seed: int) -> None:
    """Any permutation in any batches, events of one instant among them, ends in the same bytes."""
    rng, events = random.Random(seed), live(distinct_shop(300, seed))
    tied = [Event(f"t{n}", "u1", f"i{n:05d}", "view", events[200].at) for n in range(6)]
    events += tied
    clean, mixed = fresh(), fresh()
    wanted = comparable(await once(clean, sorted(events, key=lambda one: one.at)), clean.project)
    rng.shuffle(events)
    while events:
        size = rng.randrange(1, 60)
        batch, events = events[:size], events[size:]
        await mixed.send(batch)
        await mixed.drain()
    assert comparable(mixed.hashes(), mixed.project) == wanted


async def test_an_event_id_counts_once(fresh: Callable[[], Store]) -> None:
    """Twice in a body, sent again, sent again after it left the stream, and beyond what the intake remembers."""
    store, events = fresh(), live(distinct_shop(60))
    assert await store.send([*events, *events]) == [True] * 60 + [False] * 60
    await store.drain()
    wanted = store.hashes()
    assert await store.send(events) == [False] * 60
    for key in store.client.scan_iter(f"endcap:{store.project}:seen:*"):
        store.client.delete(key)
    assert await store.send(events) == [True] * 60  # the intake has forgotten; the histories have not
    await store.drain()
    assert store.hashes() == wanted


async def test_an_event_id_is_remembered_over_the_edge_of_a_period(fresh: Callable[[], Store]) -> None:
    store, (event, *_) = fresh(), live(distinct_shop(10))
    for now, new in ((999.9, True), (1000.1, False), (1999.0, False)):
        assert await store.send([event], remember_s=1000.0, now=lambda now=now: now) == [new]


async def test_accepted_ids_are_kept_until_the_next_period_ends_and_no_longer(fresh: Callable[[], Store]) -> None:
    """Whenever in its period an event comes: at most twice `remember_s`, which is what a Redis must have room for."""
    for now in (5000.0, 5500.0, 5999.0):
        store, (event, *_) = fresh(), live(distinct_shop(10))
        await store.send([event], remember_s=1000.0, now=lambda now=now: now)
        assert 7000 - now + 50 <= store.client.ttl(Keys(store.project).seen(5)) <= 7000 - now + 60


async def test_a_newer_row_is_not_overwritten_and_the_event_is_kept(fresh: Callable[[], Store]) -> None:
    """What a materialization or a push wrote with a later event time stands, until an event is newer still."""
    store, at = fresh(), 1_795_000_000_000_000
    key, stamp = key_maker(store.project, "user_id")("u"), timestamp_field("user_activity")
    ahead = encode_timestamp(at + 10)
    store.client.hset(key, mapping={stamp: ahead, feature_field("user_activity", "views_1h"): encode_int64(77)})
    await once(store, [Event("a", "u", "i", "view", at)])
    assert store.client.hget(key, stamp) == ahead
    assert features(store, "user", "u", "user_activity", ["views_1h"]) == {"views_1h": 77}
    assert features(store, "user", "u", "user_recent", ["item_ids"]) == {"item_ids": ["i"]}
    await once(store, [Event("b", "u", "i", "view", at + 20)])
    assert features(store, "user", "u", "user_activity", ["views_1h"]) == {"views_1h": 2}


async def test_several_consumers_share_the_work(fresh: Callable[[], Store]) -> None:
    """Three at once, four shoppers between them, so that they meet in every batch; one claims what is under way."""
    events = live(distinct_shop(900, users=4))
    clean, shared = fresh(), fresh()
    wanted = comparable(await once(clean, events), clean.project)
    await shared.send(events)
    consumers = [shared.consumer(claim_after_s=claim) for claim in (5.0, 5.0, 0.02)]
    await shared.drain(*consumers)
    assert comparable(shared.hashes(), shared.project) == wanted
    assert sum(one.consumed for one in consumers) >= 900


async def test_what_a_dead_consumer_had_taken_is_claimed_within_two_seconds(fresh: Callable[[], Store]) -> None:
    """As `endcap ingest` runs by default, with more than fits into one batch; an idle one asks twice a second."""
    store, events = fresh(), live(distinct_shop(600))
    keys = Keys(store.project)
    await once(store, events[:1])  # makes the group
    await store.send(events[1:])
    store.client.xreadgroup(GROUP, "killed", {keys.events: ">"}, count=600)
    consumer = Consumer(store.pipeline(), store.project)
    consumer.start()
    await store.emptied(within_s=2.2)
    before: Any = store.client.info("commandstats")["cmdstat_xautoclaim"]["calls"]
    await asyncio.sleep(1.5)
    after: Any = store.client.info("commandstats")["cmdstat_xautoclaim"]["calls"]
    await consumer.stop()
    assert after - before <= 4
    clean = fresh()
    assert comparable(store.hashes(), store.project) == comparable(await once(clean, events), clean.project)


async def test_a_name_stays_in_the_group_only_while_entries_are_pending_with_it(
    fresh: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clean stop takes it out; of those who were killed the next start does, once their entries are claimed."""
    store, events = fresh(), live(distinct_shop(60))
    keys = Keys(store.project)

    def names() -> set[str]:
        return {one["name"].decode() for one in store.client.xinfo_consumers(keys.events, GROUP)}

    await once(store, events[:20])
    assert names() == set()
    store.client.xreadgroup(GROUP, "dead", {keys.events: ">"})
    await store.send(events[20:])
    store.client.xreadgroup(GROUP, "holding", {keys.events: ">"}, count=30)
    monkeypatch.setattr("features.group.DEAD_S", 0.05)
    await asyncio.sleep(0.1)
    stopped = store.consumer(claim_after_s=60.0)
    stopped.start()
    while stopped.consumed < 10:
        await asyncio.sleep(0.01)
    assert names() == {"holding", stopped.group.name.decode()}
    await stopped.stop()
    assert names() == {"holding"} and store.waiting() == 30
    await store.drain(store.consumer(claim_after_s=0.05))
    await asyncio.sleep(0.1)
    await store.drain()
    assert names() == set() and store.waiting() == 0
    assert comparable(store.hashes(), store.project) == comparable(await once(other := fresh(), events), other.project)


async def test_what_is_no_event_is_put_aside_with_its_reason(fresh: Callable[[], Store]) -> None:
    store, events = fresh(), live(distinct_shop(20))
    keys = Keys(store.project)
    await store.send(events[:10])
    for fields in ({"e": b"\xff\xff"}, {"nothing": b""}, {"e": encode_event(events[0])[:-4]}):
        store.client.xadd(keys.events, fields)  # type: ignore[arg-type]
    await store.send(events[10:])
    consumer = store.consumer()
    await store.drain(consumer)
    assert (consumer.consumed, consumer.unusable) == (20, 3)
    dead: Any = store.client.xrange(keys.dead)
    assert len(dead) == 3 and all(b"no event" in fields[b"why"] for _, fields in dead)
    assert comparable(store.hashes(), store.project) == comparable(await once(other := fresh(), events), other.project)


async def test_an_event_that_cannot_be_worked_with_is_put_aside_and_the_rest_of_its_batch_is_not(
    fresh: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever our own code stumbles over: here, computing one shopper's features."""
    store, events = fresh(), live(distinct_shop(60))
    (bad,) = {event.user_id for event in events[:1]}
    await store.send(events)
    consumer, write = store.consumer(), Consumer.write

    def stumbling(self: Consumer, user_id: str, *rest: Any) -> Any:
        if user_id == bad:
            raise KeyError("planted")
        return write(self, user_id, *rest)

    monkeypatch.setattr(Consumer, "write", stumbling)
    await store.drain(consumer)
    theirs = [event for event in events if event.user_id == bad]
    dead: Any = store.client.xrange(Keys(store.project).dead)
    assert [decode_event(fields[b"e"]) for _, fields in dead] == theirs
    assert all(b"planted" in fields[b"why"] for _, fields in dead)
    monkeypatch.setattr(Consumer, "write", write)
    wanted = await once(other := fresh(), [event for event in events if event.user_id != bad])
    found = {key: row for key, row in comparable(store.hashes(), store.project).items() if b"user_id" in key}
    assert found == {key: row for key, row in comparable(wanted, other.project).items() if b"user_id" in key}


KEYS_OF = {
    "user:{}": "u3", "feast user": "u3", "item:{}": "i00003", "bought:{}": "i00003", "feast item": "i00003",
}  # fmt: skip


def spoil(store: Store, which: str) -> tuple[bytes, str]:
    """Puts a list where one user's or item's key is to be; returns the key and whose it is."""
    who = KEYS_OF[which]
    entity = f"{which.removeprefix('feast ')}_id"
    key = (
        key_maker(store.project, entity)(who) if "feast" in which else (Keys(store.project).prefix + which.format(who))
    )
    key = key if isinstance(key, bytes) else key.encode()
    store.client.delete(key)
    store.client.lpush(key, "x")
    return key, who


@pytest.mark.parametrize("which", KEYS_OF)
@pytest.mark.parametrize("known", [False, True])
async def test_a_key_of_the_wrong_type_costs_its_own_user_or_item_only(
    fresh: Callable[[], Store], caplog: pytest.LogCaptureFixture, which: str, known: bool
) -> None:
    """The others' features are written, the stream empties, and the dead keep the culprit's events with the reason.
    So too where the consumer knew the user before. An item's fault takes nothing from its users' features."""
    store, other, events = fresh(), fresh(), live(distinct_shop(400))
    consumer = store.consumer()
    await store.send(events[:200])
    if known:
        consumer.start()
        await store.emptied()
    key, who = spoil(store, which)
    await store.send(events[200:])
    if not known:
        consumer.start()
    await store.emptied()
    await consumer.stop()
    store.client.delete(key)
    wanted = comparable(await once(other, events), other.project)
    spoiled = {
        key,
        *(maker(who) for maker in (key_maker(store.project, "user_id"), key_maker(store.project, "item_id"))),
    }
    unhurt = {one for one in wanted if one + store.project.encode() not in spoiled}
    found = comparable(store.hashes(), store.project)
    assert {one: found.get(one) for one in unhurt} == {one: wanted[one] for one in unhurt}
    dead: Any = store.client.xrange(Keys(store.project).dead)
    theirs = [one for one in events[200 if known else 0 :] if who in (one.user_id, one.item_id)]
    if which == "bought:{}":
        theirs = [one for one in theirs if one.kind == "purchase"] or theirs
    assert {decode_event(fields[b"e"]).event_id for _, fields in dead} >= {one.event_id for one in theirs}
    assert all(who in (one := decode_event(fields[b"e"])).user_id + one.item_id for _, fields in dead)
    assert all(f"{key!r} is a list, not a ".encode() in fields[b"why"] for _, fields in dead)
    assert f"user '{who}'" in caplog.text or f"item '{who}'" in caplog.text


async def test_a_key_that_all_share_buries_nobody(fresh: Callable[[], Store]) -> None:
    """Freshness does without its newest times. Where a store takes no writes at all the events wait."""
    store, events = fresh(), live(distinct_shop(60))
    store.client.lpush(Keys(store.project).newest, "x")
    await store.send(events)
    await store.drain()
    assert not store.client.exists(Keys(store.project).dead)


async def test_a_store_that_takes_no_writes_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Out of memory, or read only: nothing goes to the dead, and all of it goes on afterwards."""
    server = EmbeddedValkey(tmp_path, "127.0.0.1", free_port())
    server.start()
    store, events = Store(server.host, server.port, "full"), live(distinct_shop(60))
    await store.send(events)
    store.client.config_set("maxmemory", 1)
    consumer = store.consumer(claim_after_s=0.1)
    consumer.start()
    await asyncio.sleep(0.5)
    assert store.waiting() == 60 and "OOM" in caplog.text
    store.client.config_set("maxmemory", 0)
    await store.emptied()
    await consumer.stop()
    assert consumer.unusable == 0 and not store.client.exists(Keys("full").dead)
    assert comparable(store.hashes(), "full") == comparable(
        await once(Store(server.host, server.port, "clean"), events), "clean"
    )
    server.stop()


async def test_a_history_that_cannot_be_read_stops_nobody(fresh: Callable[[], Store]) -> None:
    """Its shopper starts anew, everyone else's features come as ever."""
    store, at = fresh(), 1_795_000_000_000_000
    keys = Keys(store.project)
    store.client.set(keys.user("broken"), b"garbage that is no history")
    store.client.set(keys.user("short"), b"")
    store.client.set(keys.user("ragged"), VERSION.pack(3) + msgspec.msgpack.encode([[at], [], ["i"], [0.0], [1]]))
    store.client.hset(key_maker(store.project, "user_id")("stamp"), timestamp_field("user_recent"), b"\xff")
    whom = ("broken", "short", "ragged", "stamp", "well")
    await once(store, [Event(f"{who}", who, "i", "view", at) for who in whom])
    for who in whom:
        assert features(store, "user", who, "user_recent", ["item_ids"]) == {"item_ids": ["i"]}


async def test_a_full_stream_takes_nothing_more(fresh: Callable[[], Store]) -> None:
    store, events = fresh(), live(distinct_shop(20))
    assert await store.send(events[:10], max_backlog=10)
    with pytest.raises(FeatureStoreError, match="the event stream is full"):
        await store.send(events[10:], max_backlog=10)
    await store.drain()
    assert await store.send(events[10:], max_backlog=10)


def test_a_crawlers_history_is_bounded_and_old_events_leave_what_counts() -> None:
    state, at = UserState(), 1_795_000_000_000_000
    state.add((Event(f"o{n}", "u", f"old{n}", "purchase", at - 100 * DAY + n), 1.0) for n in range(500))
    state.add((Event(f"e{n}", "u", "same", "view", at + n), 0.0) for n in range(2 * KEPT))
    assert len(state.history.times) <= KEPT + 200
    assert state.activity()["views_30d"] == KEPT and state.activity()["spend_30d"] == 0
    found = state.recent()
    assert found["item_ids"][-1] == "same" and len(found["item_ids"]) == 20
    assert found["purchased_item_ids"] == [f"old{n}" for n in range(450, 500)]
    assert UserState.decode(state.encode()).recent() == found


async def test_a_batch_hands_its_histories_over_and_live_events_go_on_from_there(fresh: Callable[[], Store]) -> None:
    """Half as a batch and half live is the whole; a batch that comes later takes the place of live events it holds."""
    one = distinct_shop()
    events = live(one)
    clean, mixed = fresh(), fresh()
    wanted = comparable(await once(clean, events), clean.project)
    half = Shop(one.events.slice(0, 300), one.items, one.users)

    async def seed(batch: Shop) -> dict[str, int]:
        pipeline = mixed.pipeline()
        found = await Seed(pipeline, mixed.project, batch.events, batch.items, batch.users).run()
        await pipeline.close()
        return found.wrote

    assert (await seed(half))["live events kept"] == 0
    await mixed.send(events[300:])
    await mixed.drain()

    def differences() -> list[bytes]:
        found = comparable(mixed.hashes(), mixed.project)
        return [key for key, fields in found.items() if not fields.items() <= wanted[key].items()]

    assert differences() == []
    three_quarters = Shop(one.events.slice(0, 450), one.items, one.users)
    assert (await seed(three_quarters))["live events kept"] == 150
    assert differences() == []
    assert (await seed(three_quarters))["live events kept"] == 150


async def test_a_batch_takes_the_place_of_a_history_that_cannot_be_read(
    fresh: Callable[[], Store], caplog: pytest.LogCaptureFixture
) -> None:
    """As the consumer does with it: the same line in the log, and everyone's features go on from the batch."""
    one, store = distinct_shop(200), fresh()
    keys, events = Keys(store.project), live(one)
    store.client.set(keys.user("u1"), b"garbage that is no history")
    store.client.set(keys.user("u2"), b"")
    pipeline = store.pipeline()
    await Seed(pipeline, store.project, one.events, one.items, one.users).run()
    await pipeline.close()
    for who in ("u1", "u2"):
        assert f"user '{who}': no history of a user" in caplog.text
        raw: Any = store.client.get(keys.user(who))
        assert UserState.decode(raw).history.times == [event.at for event in events if event.user_id == who]


async def test_no_event_id_takes_the_place_of_an_event_of_the_batch(fresh: Callable[[], Store]) -> None:
    """Whatever a storefront calls its events: what an item counts is all of both."""
    one, store = distinct_shop(60), fresh()
    pipeline = store.pipeline()
    await Seed(pipeline, store.project, one.events, one.items, one.users).run()
    await pipeline.close()
    key = Keys(store.project).item("i00003")
    (member, at), *rest = store.client.zrange(key, 0, -1, withscores=True)
    named = [f"batch:{n}" for n in range(60)] + [member.decode(errors="replace"), member.decode("latin-1")]
    await once(store, [Event(name, "u1", "i00003", "view", int(at) + 10**9 + n) for n, name in enumerate(named)])
    assert store.client.zcard(key) == 1 + len(rest) + len(named)


async def test_a_store_that_was_gone_is_gone_on_with(tmp_path: Path) -> None:
    """Stopped: nothing is accepted, nothing accepted is lost. Back: the same consumer goes on by itself."""
    server = EmbeddedValkey(tmp_path, "127.0.0.1", free_port())
    server.start()
    store, events = Store(server.host, server.port, "gone"), live(distinct_shop(200))
    consumer = store.consumer()
    await store.send(events[:50])
    await store.drain(waiter := store.consumer())
    assert waiter.consumed == 50
    await store.send(events[50:100])
    server.process.kill()  # type: ignore[union-attr]
    server.process.wait()  # type: ignore[union-attr]
    consumer.start()
    with pytest.raises(FeatureStoreError):
        await store.send(events[100:])
    await asyncio.sleep(0.3)
    server._start()
    assert consumer.task is not None and not consumer.task.done()
    await store.send(events[100:])
    for _ in range(1000):
        if not store.waiting():
            break
        await asyncio.sleep(0.01)
    await consumer.stop()
    assert store.waiting() == 0 and consumer.consumed == 150
    clean = Store(server.host, server.port, "clean")
    assert comparable(store.hashes(), "gone") == comparable(await once(clean, events), "clean")
    server.stop()


async def test_a_lost_connection_does_not_stop_the_pipeline_of_the_consumer(fresh: Callable[[], Store]) -> None:
    store, events = fresh(), live(distinct_shop(400))
    consumer = store.consumer(claim_after_s=0.2)
    consumer.start()
    rng = np.random.default_rng(0)
    for start in range(0, 400, 20):
        await store.send(events[start : start + 20])
        if rng.random() < 0.5 and consumer.pipeline.transport is not None:
            consumer.pipeline.transport.abort()
        await asyncio.sleep(0.01)
    for _ in range(1000):
        if not store.waiting():
            break
        await asyncio.sleep(0.01)
    await consumer.stop()
    assert store.waiting() == 0
    clean = fresh()
    assert comparable(store.hashes(), store.project) == comparable(await once(clean, events), clean.project)


async def test_a_closed_pipeline_leaves_nobody_waiting(valkey: Server) -> None:
    pipeline = Pipeline(valkey.host, valkey.port)
    await pipeline.close()
    with pytest.raises(FeatureStoreError, match="closed"):
        await pipeline.execute(b"*1\r\n$4\r\nPING\r\n")
