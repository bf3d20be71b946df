"""What is no proper HTTP: answered as problem details, and without a word of it in the server's log."""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.service.conftest import Client

POST = b"POST /v1/recommendations HTTP/1.1\r\nHost: a\r\n"
JSON = b"Content-Type: application/json\r\n"
EMPTY = b"Content-Length: 2\r\n\r\n{}"


async def send(client: Client, data: bytes) -> list[tuple[int, str, dict[str, Any]]]:
    """What comes back on one connection until the server closes it: status, type and JSON of each answer."""
    address = urlsplit(client.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(data)
    answers = []
    async with asyncio.timeout(10):
        while status := await reader.readline():
            headers = {}
            while line := (await reader.readline()).strip():
                name, _, value = line.decode().partition(": ")
                headers[name.lower()] = value
            body = await reader.readexactly(int(headers["content-length"]))
            answers.append((int(status.split()[1]), headers["content-type"], msgspec.json.decode(body)))
    writer.close()
    return answers


REFUSED = [
    (b"nonsense\r\n\r\n", 400, "bad-request"),
    (b"GET /healthz HTTP/9.9\r\n\r\n", 400, "bad-request"),
    (b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request"),
    (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 400, "bad-request"),
    (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400, "bad-request"),
    (POST + JSON + b"Content-Encoding: br\r\n" + EMPTY, 415, "unsupported-media-type"),
    (POST + JSON + b"Content-Encoding: zstd\r\n" + EMPTY, 415, "unsupported-media-type"),
    (POST + JSON + b"Content-Encoding: rot13\r\n" + EMPTY, 415, "unsupported-media-type"),
    (POST + b"Content-Type: application/json; charset=utf-16\r\n" + EMPTY, 415, "unsupported-media-type"),
    (POST + JSON + b"Expect: foo\r\n" + EMPTY, 417, "expectation-failed"),
    (POST + JSON + b"Content-Encoding: gzip\r\n" + EMPTY, 400, "malformed-body"),
    (POST + JSON + b"Content-Encoding: deflate\r\n" + EMPTY, 400, "malformed-body"),
]


async def test_what_is_no_request_that_we_read_is_a_problem_and_no_traceback(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for data, status, slug in REFUSED:
            answers = await send(client, data.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n"))
            assert [(one[0], one[1], one[2]["type"]) for one in answers] == [
                (status, "application/problem+json", f"urn:endcap:problem:{slug}")
            ], data[:200]
    assert not caplog.records


async def test_utf_8_and_gzip_are_read(client: Client) -> None:
    headers = {"Content-Type": "application/json; charset=UTF-8", "Content-Encoding": "gzip"}
    await client.post("/v1/recommendations", data=gzip.compress(b'{"count": 1}'), headers=headers)


async def test_a_fault_of_our_own_is_a_problem_too_and_has_its_traceback_in_the_log(
    client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(client.app.api.answers, "answering", bug)
    await client.post("/v1/recommendations", {}, 500)
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)


async def test_what_http_itself_refuses_says_what_would_have_been_right(client: Client) -> None:
    found = await client.post("/v1/nothing", {}, 404)
    assert found["detail"] == "there is nothing at /v1/nothing"
    found = await client.post("/healthz", {}, 405)
    assert found["detail"] == "POST is not among GET, HEAD"
    found = await client.post(
        "/v1/recommendations",
        None,
        413,
        data=io.BytesIO(b" " * (1 << 21)),
        headers={"Content-Type": "application/json"},
    )
    assert "1,048,576 bytes" in found["detail"] and "service.max_body_bytes" in found["detail"]
