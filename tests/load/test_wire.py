"""What a server may put on the wire, byte by byte, and what the client makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from load.errors import LoadError
from load.http1 import parse_url
from load.outcome import Outcome, Run
from tests.load.play import play

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@asynccontextmanager
async def server(*replies: bytes, close: bool = False, accept: int | None = None) -> AsyncIterator[str]:
    """Send `replies` in turn to successive requests of a connection; end it after them, or after each if `close`.

    From connection number `accept` on it closes without reading.
    """
    seen = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        try:
            for reply in replies if accept is None or seen < accept else ():
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"Content-Length: 2\r\n" in head
                assert await reader.readexactly(2) == b"{}"
                writer.write(reply)
                await writer.drain()
                if close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has had enough
        finally:
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"


async def answers(*replies: bytes, close: bool = False, requests: int = 1) -> tuple[list[Outcome], Run]:
    async with server(*replies, close=close) as url:
        return await play(url, [number * 0.02 for number in range(requests)], connections=1, grace=2)


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        (OK, 200, b"hi"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", 200, b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\n\r\n" + OK, 200, b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 503, b""),
    ],
)
async def test_an_answer_is_read_whole_however_it_is_framed(reply: bytes, status: int, body: bytes) -> None:
    (outcome,), _ = await answers(reply, close=True)
    assert outcome.answer is not None
    assert (outcome.answer.status, outcome.answer.body, outcome.error) == (status, body, None)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nhi", "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "dropped"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n", "dropped"),
        (b"HTTP/1.1 200 OK\r\nContent-", "dropped"),
        (b"", "dropped"),
    ],
)
async def test_what_is_no_whole_answer_is_an_error(reply: bytes, error: str) -> None:
    (outcome,), _ = await answers(reply, close=True)
    assert (outcome.error, outcome.answer) == (error, None)
    assert outcome.latency >= 0


async def test_one_connection_carries_many_requests() -> None:
    outcomes, run = await answers(*[OK] * 5, requests=5)
    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert run.connections == 1


async def test_a_server_that_closes_after_each_answer_costs_a_connection_each_and_no_error() -> None:
    outcomes, run = await answers(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", close=True, requests=5
    )
    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert run.connections == 5


async def test_an_idle_connection_that_the_server_closed_is_not_used_again() -> None:
    async with server(OK) as url:
        outcomes, run = await play(url, [0.0, 0.1, 0.2], connections=1, grace=2)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert run.connections == 3


async def test_a_connection_with_more_than_one_answer_to_a_request_is_not_trusted_again() -> None:
    outcomes, run = await answers(OK + OK.replace(b"200", b"500"), *[OK] * 4, requests=3)
    statuses = [outcome.answer.status for outcome in outcomes if outcome.answer is not None]
    assert statuses == [200, 200, 200]
    assert run.connections == 3


async def test_several_server_timing_headers_count_as_one() -> None:
    reply = b"HTTP/1.1 200 OK\r\nServer-Timing: a;dur=1\r\nserver-timing: b;dur=2\r\nContent-Length: 0\r\n\r\n"
    (outcome,), _ = await answers(reply)
    assert outcome.answer is not None
    assert outcome.answer.server_timing == "a;dur=1, b;dur=2"


async def test_a_server_that_accepts_and_closes_costs_one_error_a_request_and_never_loops() -> None:
    async with server(OK, accept=1) as url:
        outcomes, run = await play(url, [number * 0.02 for number in range(10)], connections=4, grace=2)
    assert {outcome.error for outcome in outcomes} == {"dropped"}
    assert len(outcomes) == 10
    assert run.connections <= 21


@pytest.mark.parametrize(
    ("url", "authority", "port", "path"),
    [
        ("http://shop/v1", "shop", 80, "/v1"),
        ("https://shop", "shop", 443, "/"),
        ("http://[::1]:81/a?b=c", "[::1]:81", 81, "/a?b=c"),
    ],
)
def test_an_address_is_read(url: str, authority: str, port: int, path: str) -> None:
    target = parse_url(url)
    assert (target.authority, target.port, target.path) == (authority, port, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop:8080/v1",
        "ftp://shop/",
        "http://",
        "http://shop:port/",
        "http://shop:70000/",
        "http://a@b/",
        "http://shop/#x",
        "http://shop/a b",
        "http://shop/\r\nX: y",
        "http://shop/\u00e9",
    ],
)
def test_what_is_no_http_address_is_refused(url: str) -> None:
    with pytest.raises(LoadError, match="URL"):
        parse_url(url)
