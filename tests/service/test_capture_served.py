"""Recorded traffic of the running service: the same whichever way a request takes, and whatever becomes of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from service.app import App
from service.config import CaptureConfig, read_config
from tests.service.conftest import Client
from tests.service.test_capture import Row, partials, rows, wholes
from tests.service.test_lane import answer, connection, post
from tests.service.test_supervisor import Served, until
from tests.service.test_supervisor import post as sent

MOST_BODY = 2048


@asynccontextmanager
async def recording(deployment: Path, directory: Path, **settings: Any) -> AsyncIterator[Client]:
    """The service, which records below `directory`."""
    config = read_config(deployment)
    config = msgspec.structs.replace(
        config,
        capture=CaptureConfig(enabled=True, directory=str(directory), **settings),
        service=msgspec.structs.replace(config.service, max_body_bytes=MOST_BODY),
    )
    app = App(deployment, config)
    port = await app.listen("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        yield Client(app, session, f"http://127.0.0.1:{port}")
    await app.stop()


async def exchange(client: Client, data: bytes) -> int:
    async with connection(client) as (reader, writer):
        writer.write(data)
        return (await answer(reader))[0]


async def test_both_ways_are_recorded_alike_and_no_header_but_the_four(deployment: Path, tmp_path: Path) -> None:
    """Straight, and by the router (two `Accept-Encoding`s keep a request off the straight way)."""
    secrets = ["Authorization: Bearer hush", "Cookie: id=hush", "X-Api-Key: hush", "Referer: http://hush/",
               "User-Agent: hush", "grpc-timeout: 9S", "Proxy-Authorization: hush"]  # fmt: skip
    said = ["ENDCAP-TIMEOUT-MS: 9000", "endcap-priority: bulk", "Endcap-After: 0-0"]
    router = ["Accept-Encoding: a", "Accept-Encoding: b"]
    async with recording(deployment, tmp_path) as client:
        await client.app.load()
        taken = []
        reply = client.app.api.answers.reply
        client.app.api.answers.reply = lambda *given: taken.append(1) or reply(*given)  # type: ignore[method-assign, func-returns-value]
        for more in ([*said, *secrets], [*said, *secrets, *router]):
            assert await exchange(client, post("u1", *more)) == 200
        assert await exchange(client, post("u1", path="/v1/rank?api_key=hush", body=b'{"item_ids": ["i00001"]}')) == 200
        assert len(taken) == 1
        counted = (await client.get("/metrics"))[1]
    assert 'endcap_capture_requests_total{outcome="dropped"} 0.0' in counted
    first, second, third = rows(tmp_path)
    assert first.headers == {"Content-Type": "application/json", "Endcap-Timeout-Ms": "9000", "Endcap-Priority": "bulk",
                             "Endcap-After": "0-0"}  # fmt: skip
    assert (first.method, first.path, first.body) == ("POST", "/v1/recommendations", '{"user_id": "u1", "count": 3}')
    assert msgspec.structs.replace(second, at_us=first.at_us) == first and second.at_us > first.at_us
    assert (third.path, third.headers) == ("/v1/rank", {"Content-Type": "application/json"})
    assert b"hush" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert client.app.capture is not None and client.app.capture.written == 3


async def test_what_is_refused_is_traffic_too(
    deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every kind; what goes to other endpoints is not recorded, nor what never was a whole request."""
    kinds = {
        "malformed": (post(body=b"{"), 400, "{"),
        "no UTF-8": (post(body=b"\xff\xff"), 400, "xx"),
        "wrong": (post(body=b'{"count": 0}'), 422, '{"count": 0}'),
        "nowhere": (post(body=b'{"placement": "nowhere"}'), 404, '{"placement": "nowhere"}'),
        "empty": (post(body=b""), 400, None),
        "media": (post(body=b"a=b").replace(b"application/json", b"text/plain"), 415, "a=b"),
        "method": (post(body=b"{}").replace(b"POST", b"PUT"), 405, "{}"),
        "get": (b"GET /v1/rank HTTP/1.1\r\nHost: a\r\n\r\n", 405, None),
        "large": (post(body=b" " * (MOST_BODY + 500)), 413, "x" * (MOST_BODY + 1)),
        "bomb": (post("u", "Content-Encoding: gzip", body=gzip.compress(b" " * 10**6)), 413, "x" * (MOST_BODY + 1)),
        "expect": (post("u", "Expect: miracles", body=b"{}"), 417, "{}"),
        "other": (post(path="/v1/items", body=b'{"items": []}'), 202, ""),
        "health": (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200, ""),
        "no HTTP": (b"nonsense\r\n\r\n", 400, ""),
        "events": (post(path="/v1/events", body=b'{"events": []}'), 202, '{"events": []}'),
    }
    async with recording(deployment, tmp_path) as client:
        assert await exchange(client, post(body=b'{"user_id": "early"}')) == 503
        await client.app.load()
        for name, (data, status, _) in kinds.items():
            assert await exchange(client, data) == status, name
        async with connection(client) as (_, writer):  # a client that leaves
            writer.write(post(body=b'{"user_id": "gone"}')[:-3])
            await writer.drain()
        limiter = client.app.api.answers.answering().limiter
        monkeypatch.setattr(limiter, "full", lambda: True)
        assert await exchange(client, post(body=b'{"user_id": "full"}')) == 503
        assert await exchange(client, post("u", "Accept: a", "Accept: b", body=b'{"user_id": "routed"}')) == 503
    early, *found, full, routed = rows(tmp_path)
    assert (early.body, full.body, routed.body) == (
        '{"user_id": "early"}',
        '{"user_id": "full"}',
        '{"user_id": "routed"}',
    )
    assert [one.body for one in found] == [body for _, _, body in kinds.values() if body != ""]
    assert [one.method for one in found] == ["POST"] * 6 + ["PUT", "GET"] + ["POST"] * 4
    assert client.app.capture is not None and client.app.capture.dropped == client.app.capture.failed == 0


async def test_a_replayed_log_is_answered_as_the_original_was(deployment: Path, tmp_path: Path) -> None:
    """Sent again as it is written, each row gets the status that its request got."""
    originals = [post("u1"), post(body=b"{"), post(body=b"\xff"), post(body=b" " * 5000),
                 post("u", "Content-Encoding: gzip", body=gzip.compress(b'{"user_id": "u1"}')),
                 post("u", "Endcap-Timeout-Ms: soon")]  # fmt: skip
    async with recording(deployment, tmp_path) as client:
        await client.app.load()
        first = [await exchange(client, one) for one in originals]
        assert client.app.capture is not None
        await asyncio.to_thread(client.app.capture.flush)
        (path,) = partials(tmp_path)
        again = []
        for row in [msgspec.json.decode(line, type=Row) for line in path.read_bytes().splitlines()]:
            async with client.session.request(
                row.method, client.url + row.path, data=row.body, headers=row.headers
            ) as one:
                again.append(one.status)
    assert again == first == [200, 400, 400, 413, 200, 422]


async def test_the_time_is_that_of_the_first_byte(deployment: Path, tmp_path: Path) -> None:
    """Of one whose rest comes after another request, and of one that waits on its connection for an answer."""
    async with recording(deployment, tmp_path) as client:
        await client.app.load()
        capture = client.app.capture
        assert capture is not None
        slow = post(body=b'{"user_id": "slow"}')
        async with connection(client) as (reader, writer):
            writer.write(slow[:10])
            await writer.drain()
            await asyncio.sleep(0.05)
            assert await exchange(client, post(body=b'{"user_id": "quick"}')) == 200
            writer.write(slow[10:])
            assert (await answer(reader))[0] == 200
        go, reply = asyncio.Event(), client.app.api.answers.reply

        async def held(*given: Any) -> Any:
            await go.wait()
            return await reply(*given)

        client.app.api.answers.reply = held  # type: ignore[method-assign]
        async with connection(client) as (reader, writer):
            writer.write(post(body=b'{"user_id": "before"}'))
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(post(body=b'{"user_id": "waits"}'))
            await writer.drain()
            await asyncio.sleep(0.05)
            gone_us = capture._at_us(time.perf_counter_ns())
            go.set()
            assert [(await answer(reader))[0] for _ in range(2)] == [200, 200]
    found = {json.loads(row.body or "")["user_id"]: row.at_us for row in rows(tmp_path)}
    assert list(found) == ["slow", "quick", "before", "waits"]
    assert found["before"] < found["waits"] < gone_us


async def test_requests_in_one_read_are_each_recorded_once(deployment: Path, tmp_path: Path) -> None:
    health = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    async with recording(deployment, tmp_path) as client, connection(client) as (reader, writer):
        await client.app.load()
        writer.write(b"".join([post("u0"), health, post("u1"), post("u2")]) * 5)
        assert [(await answer(reader))[0] for _ in range(20)] == [200] * 20
    assert [json.loads(row.body or "")["user_id"] for row in rows(tmp_path)] == ["u0", "u1", "u2"] * 5


async def test_fields_are_hidden_and_only_chosen_endpoints_recorded(deployment: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"endpoints": ["/v1/events", "/v1/rank"], "hash": ["user_id"], "drop": ["item_ids"]}
    async with recording(deployment, tmp_path, **settings) as client:
        await client.app.load()
        assert await exchange(client, post("shopper-1")) == 200
        event = b'{"event_id": "e1", "user_id": "shopper-1", "item_id": "i00001", "type": "view"}'
        for body, kind in (
            (b'{"events": [%s]}' % event, b"application/json"),
            (event + b"\n", b"application/x-ndjson"),
        ):
            data = post(path="/v1/events", body=body).replace(b"application/json", kind)
            assert await exchange(client, data) == 202
        assert (
            await exchange(client, post(path="/v1/rank", body=b'{"user_id": "shopper-1", "item_ids": ["i00001"]}'))
            == 200
        )
    one, two, three = (json.loads(row.body or "") for row in rows(tmp_path))
    assert one["events"] == [two] and two["user_id"] == three["user_id"] and set(three) == {"user_id"}
    assert b"shopper-1" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


async def test_a_full_disk_costs_no_shopper_an_answer(
    deployment: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").write_text("where the directory should be")
    async with recording(deployment, tmp_path / "log") as client:
        await client.app.load()
        for number in range(5):
            assert await exchange(client, post(f"u{number}")) == 200
            await asyncio.to_thread(client.app.capture.flush)  # type: ignore[union-attr]
        counted = (await client.get("/metrics"))[1]
    assert 'endcap_capture_requests_total{outcome="failed"} 5.0' in counted
    assert len([one for one in caplog.records if one.name == "service.capture"]) == 1


async def test_nothing_is_recorded_unless_asked_for(client: Client) -> None:
    assert client.app.capture is None and client.app.api.answers.capture is None
    await client.recommend(user_id="u1")
    assert "endcap_capture" not in (await client.get("/metrics"))[1]


# Rows are held for 5 s, for what may still come from before them.
IMPATIENT = """
import sys
from service.capture import Capture
from service.cli import main
Capture.__init__.__kwdefaults__.update(hold_s=0.2, flush_s=0.1)
sys.exit(main(sys.argv[1:]))
"""


def lines(paths: list[Path]) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in paths)


def test_workers_write_a_file_each_and_a_killed_ones_is_ended_by_the_others(deployment: Path, tmp_path: Path) -> None:
    """What was written before `kill -9` is there; SIGTERM leaves whole files and loses nothing."""
    for path in deployment.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "endcap.toml").unlink()
    (tmp_path / "log").unlink(missing_ok=True)
    (tmp_path / "endcap.toml").write_text((deployment / "endcap.toml").read_text() + "\n[capture]\nenabled = true\n")
    command = [sys.executable, "-c", IMPATIENT, "serve", "--dir", str(tmp_path), "--port", "0", "--workers", "2"]
    directory = tmp_path / "log" / "traffic"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "answers at" in line)
        served = Served(process, re.findall(r"http://[\d.:]+", line)[0])
        try:
            total = 0
            while len({path.name.split("-")[1] for path in partials(directory)}) < 2:  # both have written
                assert sent(served.url) == 200
                total += 1
                time.sleep(0.05)
            assert total < 1000
            until(lambda: lines(partials(directory)) == total)
            killed = served.workers()[0]
            os.kill(killed, signal.SIGKILL)
            until(lambda: [path for path in wholes(directory) if f"-{killed}-" in path.name])
            until(lambda: len(served.workers()) == 2 and sent(served.url) == 200)
            total += 1
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    assert process.returncode == 0 and not partials(directory)
    assert total <= len(rows(directory)) <= total + 20, "until() may have sent some in vain"
    assert {row.path for row in rows(directory)} == {"/v1/recommendations"}
