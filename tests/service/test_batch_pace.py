"""`:batch` while it is under way: answers as they are done, others first, and clients that do nothing."""

from __future__ import annotations

import asyncio
import resource
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pyarrow as pa
import pytest
from pytest import MonkeyPatch

from service.accept import ARROW, NDJSON, PROTOBUF
from service.many import BatchConfig
from tests.service.batches import (
    PATH,
    Numbered,
    answers,
    lines,
    messages,
    posted,
    refused,
    replies,
    stream,
)
from tests.service.conftest import Client, counted


@pytest.fixture
def held(client: Client, monkeypatch: MonkeyPatch) -> dict[str, asyncio.Event]:
    """Users whose answer waits until somebody sets their event; `asked` is who was asked about."""
    recommender = client.app.api.answers.recommender
    assert recommender is not None
    ask, waits = recommender.recommend, {"slow": asyncio.Event()}

    async def slow(request: Any, *rest: Any) -> Any:
        if (event := waits.get(request.user_id)) is not None:
            await event.wait()
        return await ask(request, *rest)

    monkeypatch.setattr(recommender, "recommend", slow)
    return waits


def arrow_batches(response: Any) -> Iterator[list[int]]:
    with pa.ipc.open_stream(response) as batches:
        for one in batches:
            yield one["index"].to_pylist()


READERS: dict[str, tuple[Callable[[Any], Iterator[list[int]]], bytes]] = {
    ARROW: (arrow_batches, stream({"user_id": ["slow", "u1", "u2"]})),
    PROTOBUF: (
        lambda response: ([one.index] for one in replies(response)),
        messages({"user_id": "slow"}, {"user_id": "u1"}, {"user_id": "u2"}),
    ),
}


@pytest.mark.parametrize("kind", READERS)
async def test_what_is_done_is_there_before_the_last_user_is(
    client: Client, held: dict[str, asyncio.Event], kind: str
) -> None:
    """As the format's own reader of streams sees it, on a connection of urllib's: the first ones while one user still
    waits, who is let go only then."""
    loop, (reader, body) = asyncio.get_running_loop(), READERS[kind]

    def reads() -> tuple[list[int], list[int]]:
        request = urllib.request.Request(client.url + PATH, body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=20) as response:
            places, first = reader(response), list[int]()
            while len(first) < 2:
                first += next(places)
            assert not held["slow"].is_set()
            loop.call_soon_threadsafe(held["slow"].set)
            return sorted(first), [one for some in places for one in some]

    assert await asyncio.to_thread(reads) == ([1, 2], [0])


async def test_no_more_than_a_few_are_asked_about_at_a_time(client: Client, held: dict[str, asyncio.Event]) -> None:
    most, flying = 0, 0
    recommender = client.app.api.answers.recommender
    assert recommender is not None
    ask: Callable[..., Awaitable[Any]] = recommender.recommend

    async def noted(*rest: Any) -> Any:
        nonlocal most, flying
        flying += 1
        most = max(most, flying)
        try:
            return await ask(*rest)
        finally:
            flying -= 1

    recommender.recommend = noted  # type: ignore[method-assign]
    client.app.api.batch.config = BatchConfig(in_flight=3)
    assert len(await answers(client, lines(*[{"user_id": "u1"}] * 50), NDJSON)) == 50
    assert most == 3 and flying == 0


async def test_others_go_first_and_a_batch_that_gets_no_turn_says_so(client: Client) -> None:
    """Where the gate has no room for bulk the users of a batch wait, and are refused when its time is over."""
    recommender = client.app.api.answers.recommender
    assert recommender is not None
    recommender.limiter.in_flight += 1000
    client.app.api.batch.config = BatchConfig(timeout_s=0.1)
    found = await answers(client, lines({"user_id": "u1"}, {"user_id": "u2"}), NDJSON)
    assert [one["problem"]["status"] for one in found] == [504, 504]
    client.app.api.batch.config = BatchConfig()
    asyncio.get_running_loop().call_later(0.1, setattr, recommender.limiter, "in_flight", 0)
    (one,) = await answers(client, lines({"user_id": "u1"}), NDJSON)
    assert one["recommendation"]["degraded"] == []
    assert recommender.limiter.refused == {"interactive": 0, "bulk": 0}


async def test_more_batches_than_may_be_are_refused_at_once(client: Client, held: dict[str, asyncio.Event]) -> None:
    client.app.api.batch.config = BatchConfig(at_once=1)
    async with posted(client, lines({"user_id": "slow"}), NDJSON) as response:
        problem = await refused(client, lines({}), NDJSON, 503)
        assert problem["type"] == "urn:endcap:problem:overloaded" and "batch.at_once" in problem["detail"]
        held["slow"].set()
        await response.read()
    assert len(await answers(client, lines({}), NDJSON)) == 1


async def gone(client: Client, until: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not until():
            await asyncio.sleep(0.02)


async def test_a_client_that_goes_away_ends_its_batch(client: Client, held: dict[str, asyncio.Event]) -> None:
    async with posted(client, lines({"user_id": "slow"}, {"user_id": "u1"}), NDJSON) as response:
        await response.content.readany()
        response.close()
    await gone(client, lambda: client.app.api.batch.under_way == 0)
    assert not held["slow"].is_set()
    _, text = await client.get("/metrics")
    assert counted(text, "endcap_requests_total", endpoint=PATH, status="499") == 1


async def connected(client: Client, head: bytes, *, small: bool = False) -> tuple[asyncio.StreamReader, Any]:
    address = urlsplit(client.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1024 if small else 65536)
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: {NDJSON}\r\n".encode() + head)
    return reader, writer


async def test_a_client_that_stops_reading_is_closed_and_nothing_piles_up(client: Client) -> None:
    """Answers are made as fast as they are read: a few hundred, where 10,000 were asked for. Others are answered."""
    client.app.api.batch.config = BatchConfig(write_timeout_s=0.5)
    body = lines(*[{"count": 200}] * 10_000)
    _, writer = await connected(client, b"Content-Length: %d\r\n\r\n" % len(body) + body, small=True)
    await gone(client, lambda: client.app.api.batch.under_way == 1)
    assert (await client.recommend(user_id="u1"))["degraded"] == []
    await gone(client, lambda: client.app.api.batch.under_way == 0)
    _, text = await client.get("/metrics")
    assert counted(text, "endcap_batch_users_total", endpoint=PATH) < 5000
    assert counted(text, "endcap_requests_total", endpoint=PATH, status="499") == 1
    writer.close()


async def test_a_client_that_never_sends_is_told_and_closed(client: Client, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr("service.http.intake.BODY_TIMEOUT_S", 0.3)
    reader, writer = await connected(client, b"Content-Length: 1000\r\n\r\n{}")
    async with asyncio.timeout(20):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 504 ") and b"deadline-exceeded" in answer
    assert client.app.api.batch.under_way == 0
    writer.close()


async def test_a_client_that_drips_is_told_and_closed(client: Client, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr("service.http.batch.BODY_S", 0.3)
    reader, writer = await connected(client, b"Content-Length: 1000\r\n\r\n")

    async def drip() -> None:
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(20):
        answer = await reader.readuntil(b"\r\n")
    assert answer.startswith(b"HTTP/1.1 504 ")
    dripping.cancel()
    writer.close()


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.slow
@pytest.mark.parametrize("kind", [ARROW, PROTOBUF])
async def test_ten_thousand_users_take_little_memory(client: Client, kind: str) -> None:
    """The client reads as it comes and keeps only who was answered; it is in the same process."""

    async def ask(users: int) -> None:
        seen, most, began = set[int](), 0, resident()
        ids = [f"u{place % 12}" for place in range(users)]
        if kind == ARROW:
            body = stream({"user_id": ids, "count": [20] * users})
        else:
            body = messages(*({"user_id": one} for one in ids), count=20)
        async with posted(client, body, kind, NDJSON) as response:
            async for line in response.content:
                seen.add(msgspec.json.decode(line, type=Numbered).index)
                most = max(most, resident())
        assert seen == set(range(users))
        grown.append(most - began)

    grown: list[int] = []
    for users in (1000, 10_000):
        await ask(users)
    assert grown[1] < 48 << 20, grown
    _, text = await client.get("/metrics")
    assert counted(text, "endcap_batch_users_total", endpoint=PATH, status="200") == 11_000


async def test_a_placement_s_cap_is_for_who_waits_and_not_for_a_batch(client: Client) -> None:
    recommender = client.app.api.answers.recommender
    assert recommender is not None
    hurried = msgspec.structs.replace(recommender.placements.placements["home"], timeout_ms=0.001)
    recommender.placements.placements["home"] = hurried
    single = await client.recommend(user_id="u1")
    (one,) = await answers(client, lines({"user_id": "u1"}), NDJSON)
    assert "popular" in single["degraded"]
    assert one["recommendation"]["degraded"] == []


async def test_what_a_header_says_is_for_the_whole_batch(client: Client) -> None:
    body = lines({"user_id": "u1"}, {"user_id": "u2"})
    for value, statuses in (("0", [504, 504]), ("20000", [None, None])):
        headers = {"Content-Type": NDJSON, "Endcap-Timeout-Ms": value}
        async with client.session.post(client.url + PATH, data=body, headers=headers) as response:
            rows = [msgspec.json.decode(line) for line in (await response.read()).splitlines()]
        assert [row.get("problem", {}).get("status") for row in rows] == statuses
    headers = {"Content-Type": NDJSON, "Endcap-Timeout-Ms": "soon"}
    async with client.session.post(client.url + PATH, data=body, headers=headers) as response:
        assert response.status == 422
