"""The online reader under concurrency and faults, on a real server."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from features.errors import FeatureStoreError, FeatureStoreTimeout
from features.layout import feature_field, timestamp_field
from features.online import OnlineReader, ReadPlan, View, connect
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
    one = connect(valkey.host, valkey.port)
    yield one
    await one.aclose()


@pytest.fixture
async def reader(valkey: Server) -> AsyncIterator[OnlineReader]:
    one = OnlineReader(connect(valkey.host, valkey.port), PLAN, now=lambda: NOW)
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


async def test_reads_that_wait_share_a_pipeline(valkey: Server, client: Any) -> None:
    """While one read is in flight, the 63 that follow go out together: 2 round trips, not 64."""
    one = OnlineReader(connect(valkey.host, valkey.port), PLAN)
    trips = 0
    inner = one._read_batch

    async def counted(batch: Any) -> None:
        nonlocal trips
        trips += 1
        await inner(batch)

    one._read_batch = counted  # type: ignore[method-assign]
    first = asyncio.create_task(one.read("u0"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.gather(first, *(one.read(f"u{i}") for i in range(63)))
    assert trips == 2
    await one.close()


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
    one = OnlineReader(connect(server.host, server.port), PLAN, now=lambda: NOW)
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
    one = OnlineReader(connect("127.0.0.1", port), PLAN, stall_s=0.1)
    try:
        with pytest.raises(FeatureStoreTimeout):
            await one.read("u")
        with pytest.raises(FeatureStoreError):
            await one.ping()
    finally:
        await one.close()
        hole.close()


async def test_closing_ends_reads_in_flight(valkey: Server) -> None:
    one = OnlineReader(connect(valkey.host, valkey.port), PLAN)
    reading = asyncio.create_task(one.read("u"))
    await asyncio.sleep(0)
    await one.close()
    done, _ = await asyncio.wait({reading}, timeout=5)
    assert done, "a caller was left waiting"
