"""The straight way to the endpoints that answer: the same answers in the order of the requests, nothing else on it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from ranking.errors import EngineError
from service.http import answers
from service.http.lane import Scanner
from tests.service.conftest import Client, running

Answer = tuple[int, dict[str, str], dict[str, Any] | str]


def post(user: str = "u1", *more: str, path: str = "/v1/recommendations", body: bytes | None = None) -> bytes:
    content = b'{"user_id": "%s", "count": 3}' % user.encode() if body is None else body
    lines = [f"POST {path} HTTP/1.1", "Host: a", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, *more, "", ""]).encode() + content


@asynccontextmanager
async def connection(client: Client) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urlsplit(client.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    async with asyncio.timeout(20):
        yield reader, writer
    writer.close()


async def answer(reader: asyncio.StreamReader) -> Answer:
    status, headers = await reader.readline(), {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value
    body = await reader.readexactly(int(headers["content-length"]))
    json = "json" in headers["content-type"]
    return int(status.split()[1]), headers, msgspec.json.decode(body) if json else body.decode()


class Gone(asyncio.Transport):
    """A connection that nobody is at the other end of."""

    def write(self, data: object) -> None: ...

    def close(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.fixture
def straight(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that went the straight way."""
    taken: list[str] = []
    reply = client.app.api.answers.reply

    async def noted(path: str, *rest: Any) -> Any:
        taken.append(path)
        return await reply(path, *rest)

    monkeypatch.setattr(client.app.api.answers, "reply", noted)
    return taken


async def items(client: Client, data: bytes) -> list[Any]:
    async with connection(client) as (reader, writer):
        writer.write(data)
        _, _, body = await answer(reader)
        assert isinstance(body, dict)
        return [one["item_id"] for one in body["items"]]


async def test_both_ways_give_the_same_answer_with_the_same_headers(client: Client, straight: list[str]) -> None:
    found = []
    for data in (post(), post("u1", "Connection: keep-alive", "Expect: 100-continue")):
        async with connection(client) as (reader, writer):
            writer.write(data)
            if b"Expect" in data:
                assert (await reader.readline()).startswith(b"HTTP/1.1 100") and not (await reader.readline()).strip()
            status, headers, body = await answer(reader)
            assert isinstance(body, dict)
            found.append((status, set(headers), headers["content-type"], headers["server"], body["items"], set(body)))
    assert found[0] == found[1]
    assert straight == ["/v1/recommendations"]


async def test_rank_goes_the_straight_way_too(client: Client, straight: list[str]) -> None:
    assert await items(client, post(path="/v1/rank", body=b'{"item_ids": ["i00002", "i00001"]}'))
    assert straight == ["/v1/rank"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post(body=b"{"), 400),
        (post(body=b'{"count": 0}'), 422),
        (post(body=b'{"placement": "nowhere"}'), 404),
        (post("u1", "Endcap-Timeout-Ms: soon"), 422),
    ],
)
async def test_mistakes_on_the_straight_way_are_problems_and_leave_the_connection_open(
    client: Client, straight: list[str], data: bytes, status: int
) -> None:
    async with connection(client) as (reader, writer):
        writer.write(data)
        found, headers, body = await answer(reader)
        assert (found, headers["content-type"]) == (status, "application/problem+json")
        assert isinstance(body, dict) and body["status"] == status
        writer.write(post())
        assert (await answer(reader))[0] == 200
    assert len(straight) == 2


@pytest.mark.parametrize(
    "data",
    [
        post("u1", "Transfer-Encoding: identity"),
        post("u1", "Content-Type: application/json"),
        post("u1", "Endcap-Timeout-Ms: 9000", "Endcap-Timeout-Ms: 9000"),
        post("u1", "X: " + "x" * 8100),
        post(path="/v1/recommendations?a=b"),
        post().replace(b"HTTP/1.1", b"HTTP/1.0"),
        post("u1", "Connection: close"),
        post("u1", "Content-Encoding: gzip", body=gzip.compress(b'{"user_id": "u1"}')),
        post().replace(b"application/json", b"application/json; charset=US-ASCII"),
        post(body=b""),
        post().replace(b"Host: a\r\n", b""),
        post("u1", "Host: b"),
        post().replace(b"Host: a", b"Host: a\r\n b"),
    ],
)
async def test_what_is_not_plain_is_left_to_aiohttp(client: Client, straight: list[str], data: bytes) -> None:
    async with connection(client) as (reader, writer):
        writer.write(data)
        await answer(reader)
    assert not straight


@pytest.mark.parametrize("pause_s", [0.0, 0.01], ids=["in one read", "while the one before is answered"])
async def test_requests_on_one_connection_are_answered_in_their_order(
    client: Client, straight: list[str], monkeypatch: pytest.MonkeyPatch, pause_s: float
) -> None:
    reply = client.app.api.answers.reply

    async def slow(path: str, *rest: Any) -> Any:
        await asyncio.sleep(0.03)
        return await reply(path, *rest)

    monkeypatch.setattr(client.app.api.answers, "reply", slow)
    health = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    rank = post(path="/v1/rank", body=b'{"item_ids": ["i00001"]}')
    for parts in (
        [health, post()],
        [post(), health],
        [post("u1"), rank, post("u2")],
        [post(f"u{i}") for i in range(9)],
    ):
        alone = [await items(client, part) for part in parts if part is not health]
        async with connection(client) as (reader, writer):
            for part in parts:
                writer.write(part)
                await asyncio.sleep(pause_s)
            found = [await answer(reader) for _ in parts]
        assert [one[0] for one in found] == [200] * len(parts)
        assert ["items" in one[2] for one in found] == [part is not health for part in parts]
        bodies = [one[2] for one in found if isinstance(one[2], dict) and "items" in one[2]]
        assert [[item["item_id"] for item in body["items"]] for body in bodies] == alone
    assert straight


async def test_a_request_that_comes_in_pieces_is_one_request(client: Client, straight: list[str]) -> None:
    data = post()
    async with connection(client) as (reader, writer):
        for cut in (1, 20, data.index(b"\r\n\r\n") + 2, len(data) - 1):
            for part in (data[:cut], data[cut:]):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.02)
            assert (await answer(reader))[0] == 200
        assert not straight
        writer.write(data)
        assert (await answer(reader))[0] == 200
    assert len(straight) == 1


def test_of_a_body_that_comes_in_pieces_nothing_is_kept(client: Client) -> None:
    """Or a gigabyte that aiohttp refuses and lets pass would lie in memory."""
    host = client.app.api.answers
    scanner = Scanner(host.paths, host.most_body, None)
    head = post(body=b"x" * 10_000_000)[:-10_000_000]
    assert scanner.feed(head + b"x" * 1000) is None
    for _ in range(20):
        assert scanner.feed(b"x" * 100_000) is None
        assert not scanner.found.body
    assert scanner.begun == 1 and scanner.ended == 0


async def test_what_looks_like_a_request_within_another_is_none(client: Client, straight: list[str]) -> None:
    """The rest of a head, or of a body, that begins with a request line must not be taken for a request."""
    inner = post("u2")
    body = b'{"user_id": "u1", "count": 3}' + b" " * len(inner)
    whole = post(body=body)
    async with connection(client) as (reader, writer):
        writer.write(whole[: -len(inner)])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(inner)  # the last bytes of that body
        status, _, said = await answer(reader)
        assert status == 400 and isinstance(said, dict) and "trailing" in said["detail"]
        writer.write(b"GET /healthz HTTP/1.1\r\nX: ")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(inner)
        assert (await answer(reader))[2] == {"status": "alive"}
    assert not straight


async def test_after_bytes_that_are_no_http_nothing_goes_the_straight_way(client: Client, straight: list[str]) -> None:
    async with connection(client) as (reader, writer):
        writer.write(b"nonsense\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(post())
        assert (await answer(reader))[0] == 400
        assert not await reader.read()
    assert not straight


async def test_a_fault_of_our_own_is_a_500_with_its_traceback_in_the_log(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(answers, "read_call", bug)
    async with connection(client) as (reader, writer):
        writer.write(post())
        status, _, body = await answer(reader)
        assert status == 500 and isinstance(body, dict) and body["type"] == "urn:endcap:problem:internal-error"
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)


async def test_a_client_that_goes_away_ends_its_request(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def never(*_: object, **__: object) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    monkeypatch.setattr(client.app.api.answers.answering(), "recommend", never)
    async with connection(client) as (_, writer):
        writer.write(post())
        await began.wait()
        writer.close()
        await ended.wait()


async def test_clients_that_leave_at_once_cost_nothing_and_harm_nobody(client: Client) -> None:
    """Also one whose request was read in the same turn as its end: a coroutine left unawaited would fail the test."""
    for _ in range(50):
        async with connection(client) as (_, writer):
            writer.write(post())
            writer.transport.abort()
    lane = client.app.runner.server()  # type: ignore[union-attr,misc]
    lane.connection_made(Gone())
    await asyncio.sleep(0)
    lane.data_received(post())
    assert lane.task is not None
    lane.connection_lost(None)
    await asyncio.sleep(0.05)
    await client.recommend(user_id="u1")


async def test_what_is_being_answered_when_the_service_stops_is_answered_and_the_connection_closed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, began = asyncio.Event(), asyncio.Event()

    async def slow(*_: object, **__: object) -> None:
        began.set()
        await go.wait()
        raise EngineError("done")

    monkeypatch.setattr(client.app.api.answers.answering(), "recommend", slow)
    async with connection(client) as (reader, writer), connection(client) as (idle, _):
        writer.write(post())
        await began.wait()
        writer.write(post())  # comes too late
        stopping = asyncio.create_task(client.app.stop())
        await asyncio.sleep(0.1)
        assert not stopping.done()
        go.set()
        status, headers, _ = await answer(reader)
        assert status == 500 and headers["connection"] == "close"
        assert not await reader.read() and not await idle.read()
        await stopping
    client.app.runner = client.app.engine = None  # the fixture stops it once more
    client.app.closing.clear()


async def test_a_connection_is_not_idle_while_a_request_is_answered(
    deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.app.KEEPALIVE_S", 0.1)
    async with running(deployment) as client, connection(client) as (reader, writer):
        reply = client.app.api.answers.reply

        async def slow(*asked: Any) -> Any:
            await asyncio.sleep(0.5)
            return await reply(*asked)

        monkeypatch.setattr(client.app.api.answers, "reply", slow)
        writer.write(post())
        assert (await answer(reader))[0] == 200
        assert not await reader.read()  # and closed a while later
