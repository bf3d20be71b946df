"""The online reader under concurrency and faults, on a real server."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from features.errors import FeatureStoreError, FeatureStoreTimeout
from features.layout import feature_field, timestamp_field
from features.online import OnlineReader, ReadPlan, View
from features.pipeline import Pipeline, encode
from service.valkey import EmbeddedValkey, free_port
from tests.conftest import Server

NOW = 1_795_000_000.0
PLAN = ReadPlan("reader", "user_id", [View("v", ("who", "n"), 3600.0), View("w", ("x",), None)])


def timestamp(seconds: int) -> bytes:
    from google.protobuf.timestamp_pb2 import Timestamp

    data: bytes = Timestamp(seconds=seconds).SerializeToString()
    return data


def text(value: str) -> bytes:
    return b"\x12" + bytes([len(value)]) + value.encode()


async def put(client: Any, user: str, fields: dict[bytes, bytes]) -> None:
    await client.hset(PLAN.key(user), mapping=fields)


@pytest.fixture
async def client(valkey: Server) -> AsyncIterator[Any]:
    one = redis.asyncio.Redis(host=valkey.host, port=valkey.port, protocol=2)
    yield one
    await one.aclose()


@pytest.fixture
async def reader(valkey: Server) -> AsyncIterator[OnlineReader]:
    one = OnlineReader(Pipeline(valkey.host, valkey.port), PLAN, now=lambda: NOW)
    yield one
    await one.close()


async def test_concurrent_reads_each_get_their_own_user(client: Any, reader: OnlineReader) -> None:
    """Values encode their user: 2,000 mixed reads, half of them cancelled at random, mix nothing up."""
    for i in range(50):
        await put(
            client, f"u{i}", {timestamp_field("v"): timestamp(int(NOW)), feature_field("v", "who"): text(f"u{i}")}
        )

    async def one(i: int) -> None:
        found = await reader.read(f"u{i % 50}")
        assert found.values["v:who"] == f"u{i % 50}"

    tasks = [asyncio.create_task(one(i)) for i in range(2000)]
    await asyncio.sleep(0)
    for task in tasks[1::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None for result in results[::2])
    assert all(isinstance(result, asyncio.CancelledError) for result in results[1::2])


async def test_reads_of_one_turn_share_a_write(valkey: Server) -> None:
    """64 concurrent reads are one write, not 64."""
    one = OnlineReader(Pipeline(valkey.host, valkey.port), PLAN)
    await one.ping()
    transport = one.pipeline.transport
    assert transport is not None
    writes: list[bytes] = []

    class Counted:
        def write(self, data: bytes) -> None:
            writes.append(data)
            transport.write(data)

        def abort(self) -> None:
            transport.abort()

    one.pipeline.transport = Counted()  # type: ignore[assignment]
    await asyncio.gather(*(one.read(f"u{i}") for i in range(64)))
    assert len(writes) == 1 and writes[0].count(b"HMGET") == 64
    await one.close()


async def test_a_connection_lost_with_reads_in_flight_reads_again(valkey: Server, client: Any) -> None:
    """A server that drops its clients between a command and its reply costs nobody an answer."""
    await put(client, "again", {timestamp_field("v"): timestamp(int(NOW)), feature_field("v", "who"): text("again")})
    one = OnlineReader(Pipeline(valkey.host, valkey.port), PLAN, now=lambda: NOW)
    await one.ping()
    for _ in range(5):
        reads = [asyncio.create_task(one.read("again")) for _ in range(20)]
        await asyncio.sleep(0)
        await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert {(await read).values["v:who"] for read in reads} == {"again"}
    await one.close()


async def test_a_pipeline_logs_in_and_selects_its_database(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path, "127.0.0.1", free_port())
    server.start()
    admin = redis.asyncio.Redis(host=server.host, port=server.port, protocol=2)
    try:
        await admin.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all")
        await admin.execute_command("SELECT", "3")
        right = Pipeline(server.host, server.port, db=3, username="reader", password="secret")
        assert await right.execute(encode(b"SET", b"k", b"v")) == b"OK"
        await right.close()
        other = redis.asyncio.Redis(host=server.host, port=server.port, protocol=2, db=3)
        assert await other.get("k") == b"v"
        await other.aclose()
        wrong = Pipeline(server.host, server.port, username="reader", password="guess")
        with pytest.raises(FeatureStoreError, match="WRONGPASS"):
            await wrong.execute(encode(b"PING"))
        await wrong.close()
    finally:
        await admin.aclose()
        server.stop()


async def test_what_is_not_redis_is_said_so(tmp_path: Path) -> None:
    async def web(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        await incoming.read(10)
        outgoing.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        outgoing.close()

    page = await asyncio.start_server(web, "127.0.0.1", 0)
    one = OnlineReader(Pipeline("127.0.0.1", page.sockets[0].getsockname()[1], stall_s=1), PLAN)
    try:
        with pytest.raises(FeatureStoreError, match="closed the connection"):
            await one.ping()
    finally:
        await one.close()
        page.close()


async def test_a_key_of_another_type_fails_its_own_reader_only(client: Any, reader: OnlineReader) -> None:
    await client.set(PLAN.key("wrong"), b"not a hash")
    await put(client, "right", {timestamp_field("v"): timestamp(int(NOW)), feature_field("v", "who"): text("right")})
    wrong, right = await asyncio.gather(reader.read("wrong"), reader.read("right"), return_exceptions=True)
    assert isinstance(wrong, FeatureStoreError) and "WRONGTYPE" in str(wrong)
    assert not isinstance(right, BaseException) and right.values == {"v:who": "right"}


async def test_an_unreadable_value_spoils_its_view_and_no_other(client: Any, reader: OnlineReader) -> None:
    fields = {
        timestamp_field("v"): timestamp(int(NOW) - 10),
        feature_field("v", "who"): text("broken")[:-2],
        timestamp_field("w"): timestamp(int(NOW) - 20),
        feature_field("w", "x"): b"\x35" + struct.pack("<f", 2.5),
    }
    await put(client, "broken", fields)
    found = await reader.read("broken")
    assert found.views["v"].status == "unreadable"
    assert found.views["w"].status == "present" and found.views["w"].age_s == 20.0
    assert found.values == {"w:x": 2.5}


async def test_a_feature_that_was_never_written_is_absent_in_a_present_view(client: Any, reader: OnlineReader) -> None:
    await put(client, "half", {timestamp_field("v"): timestamp(int(NOW)), feature_field("v", "who"): text("half")})
    found = await reader.read("half")
    assert found.views["v"].status == "present" and found.views["w"].status == "missing"
    assert found.values == {"v:who": "half"}


async def test_the_reader_survives_its_server_going_and_coming_back(tmp_path: Path) -> None:
    """Reads fail with FeatureStoreError while the server is down, and work again without a restart."""
    server = EmbeddedValkey(tmp_path, "127.0.0.1", free_port())
    server.start()
    one = OnlineReader(Pipeline(server.host, server.port), PLAN, now=lambda: NOW)
    try:
        assert not (await one.read("u")).known
        server.stop()
        for _ in range(3):
            with pytest.raises(FeatureStoreError):
                await one.read("u")
        server.start()
        assert not (await one.read("u")).known
        await one.ping()
    finally:
        await one.close()
        server.stop()


async def test_a_server_that_accepts_and_never_answers_is_given_up(tmp_path: Path) -> None:
    """A black hole costs each batch `stall_s` and no more, and reads work again once it answers."""

    async def swallow(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        await incoming.read()
        outgoing.close()

    hole = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = hole.sockets[0].getsockname()[1]
    one = OnlineReader(Pipeline("127.0.0.1", port, stall_s=0.1), PLAN)
    try:
        with pytest.raises(FeatureStoreTimeout):
            await one.read("u")
        with pytest.raises(FeatureStoreError):
            await one.ping()
    finally:
        await one.close()
        hole.close()


async def test_closing_ends_reads_in_flight(valkey: Server) -> None:
    one = OnlineReader(Pipeline(valkey.host, valkey.port), PLAN)
    reading = asyncio.create_task(one.read("u"))
    await asyncio.sleep(0)
    await one.close()
    done, _ = await asyncio.wait({reading}, timeout=5)
    assert done, "a caller was left waiting"


async def test_a_reply_is_read_by_the_plan_that_asked_for_it(client: Any, valkey: Server) -> None:
    """Also where another plan has come meanwhile, and also a reply that is remembered."""
    stamps = {timestamp_field(view): timestamp(int(NOW)) for view in ("v", "z")}
    await put(
        client, "changing", {**stamps, feature_field("v", "who"): text("me"), feature_field("z", "what"): text("x")}
    )
    one = OnlineReader(Pipeline(valkey.host, valkey.port), PLAN, remember=2, now=lambda: NOW)
    other = ReadPlan(PLAN.project, PLAN.join_key, [View("z", ("what",), None), *PLAN.views])
    reading = asyncio.create_task(one.read("changing"))
    await asyncio.sleep(0)
    one.plan = other
    assert (await reading).values == {"v:who": "me"}
    remembered = one.last_known("changing")
    assert remembered is not None and remembered.values == {"v:who": "me"}
    assert (await one.read("changing")).values == {"v:who": "me", "z:what": "x"}
    await one.close()
