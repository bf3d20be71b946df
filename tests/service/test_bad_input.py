"""What a client of any HTTP door can do wrong: a clear error, nothing kept, others answered meanwhile.

One contract for all of them; what is a door's own is in its own tests, and gRPC's is in test_rpc_limits.py. The table
is in docs/transports.md.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.accept import ARROW, JSON, NDJSON, PROTOBUF
from service.http import patience
from service.http.patience import Patient
from service.rpc.stubs import recommendations_pb2 as pb
from tests.service.batches import stream
from tests.service.conftest import Client, running
from tests.service.oip import TOWER
from tests.service.test_many_arrow import peak


@dataclass(frozen=True)
class Door:
    """`wrong` and `unknown` name a field, `cut` ends too early. `status`: of what is not all bad, where a bad row fails
    alone; `newer`: where an unknown field is taken, as Feast takes it. `large`: what is said of a body above the bound.
    """

    path: str
    kind: str
    wrong: tuple[bytes, str]
    unknown: tuple[bytes, str]
    cut: bytes
    status: int | None = None
    newer: bool = False
    large: str = "1,048,576 bytes"

    def __str__(self) -> str:
        return f"{self.path} {self.kind}"


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def json_door(path: str, good: dict[str, Any], field: str, **more: Any) -> Door:
    """Of which `field` is never a number."""
    wrong, unknown = {**good, field: 5}, {**good, "nothing": 5}
    return Door(path, JSON, (text(wrong), field), (text(unknown), "nothing"), text(good)[:-1], **more)


def rows_door(path: str, good: dict[str, Any], **more: Any) -> Door:
    wrong, unknown = {**good, "user_id": 5}, {**good, "nothing": 5}
    cut = text(good) + b"\n" + text(good)[:-1]
    return Door(path, NDJSON, (text(wrong), "user_id"), (text(unknown), "nothing"), cut, **more)


def arrow_door(path: str, **more: Any) -> Door:
    wrong, unknown = stream({"user_id": [5]}), stream({"user_id": ["u1"], "nothing": [5]})
    return Door(path, ARROW, (wrong, "user_id"), (unknown, "nothing"), stream({"user_id": ["u1"]})[:-60], **more)


EVENT = {"event_id": "e1", "user_id": "u1", "item_id": "i00001", "type": "view"}
USERS = {"features": ["user_profile:country"], "entities": {"user_id": ["u1"]}}
PUSHED = {"user_id": ["u1"], "country": ["DE"], "event_timestamp": ["2026-11-20T10:00:00Z"]}
MESSAGE = pb.RecommendRequest(user_id="u1", count=3).SerializeToString()
LARGER = "16,777,216 bytes"

DOORS = [
    json_door("/v1/recommendations", {"user_id": "u1"}, "user_id"),
    json_door("/v1/rank", {"user_id": "u1", "item_ids": ["i00001"]}, "item_ids"),
    Door("/v1/recommendations", PROTOBUF, (b"\x08\x05", "user_id"), (b"\x78\x01", "15"), MESSAGE[:-1]),
    json_door("/v1/events", {"events": [EVENT]}, "events"),
    rows_door("/v1/events", EVENT, status=202, large="the line is longer than 65,536 bytes"),
    json_door("/v1/items", {"items": [{"item_id": "i00001", "in_stock": True}]}, "items"),
    json_door("/v1/recommendations:batch", {"requests": [{"user_id": "u1"}]}, "requests"),
    rows_door("/v1/recommendations:batch", {"user_id": "u1"}, status=200, large=LARGER),
    arrow_door("/v1/recommendations:batch", large=LARGER),
    json_door(f"/v2/models/{TOWER}/infer", {"inputs": []}, "inputs"),
    json_door("/get-online-features", USERS, "entities", newer=True),
    json_door("/push", {"push_source_name": "user_events", "df": PUSHED}, "df", newer=True),
    json_door("/write-to-online-store", {"feature_view_name": "user_profile", "df": PUSHED}, "df", newer=True),
    json_door("/v1/jobs", {"user_ids": ["u1"]}, "user_ids"),
    rows_door("/v1/jobs", {"user_id": "u1"}, large="rows[0]: has more than 1,048,576 bytes"),
    arrow_door("/v1/jobs", large="2,000,000 bytes"),
]


@pytest.fixture
async def here(deployment: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Client]:
    """With every door open. At the end others are still answered, no upload has left anything, and nothing of it is in
    the log as a failure of ours."""
    shop = tmp_path / "shop"
    shutil.copytree(deployment, shop)
    with (shop / "endcap.toml").open("a") as file:
        file.write("\n[oip]\nenabled = true\n[feast_api]\nenabled = true\npush = true\n[jobs]\nmax_mb = 2\n")
    async with running(shop) as one:
        yield one
        assert (await one.recommend(user_id="u1"))["degraded"] == []
        assert not list((shop / "jobs").glob(".*.partial"))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def said(here: Client, door: Door, body: bytes, **headers: str) -> tuple[int, str]:
    kind = {"Content-Type": door.kind, **headers}
    async with here.session.post(here.url + door.path, data=io.BytesIO(body), headers=kind) as response:
        return response.status, await response.text()


async def test_a_field_of_a_wrong_type_is_named_at_every_door(here: Client) -> None:
    for door in DOORS:
        status, words = await said(here, door, door.wrong[0])
        assert status == door.status or status in (400, 422), f"{door}: {status} {words}"
        assert (door.wrong[1] in words and "xpected" in words) or "another type" in words, f"{door}: {words}"


async def test_a_field_that_nobody_knows_is_named_at_every_door(here: Client) -> None:
    """But at Feast's, where an SDK that is newer sends what we need not know."""
    for door in DOORS:
        status, words = await said(here, door, door.unknown[0])
        assert status == door.status or door.newer or status in (400, 422), f"{door}: {status} {words}"
        assert (f"{door.unknown[1]}: Unknown field" in words) != door.newer, f"{door}: {words}"


async def test_what_ends_too_early_is_malformed_at_every_door(here: Client) -> None:
    for door in DOORS:
        status, words = await said(here, door, door.cut)
        assert status == (door.status or 400), f"{door}: {status} {words}"
        assert any(one in words for one in ("truncated", "no endcap", "no Arrow", "delimiter")), f"{door}: {words}"


async def test_what_is_too_large_is_refused_at_every_door_before_it_is_unpacked(here: Client) -> None:
    """64 MiB in 64 KiB of gzip."""
    bomb, before = gzip.compress(b" " * (64 << 20), 1), peak()
    for door in DOORS:
        status, words = await said(here, door, bomb, **{"Content-Encoding": "gzip"})
        assert status in (413, 422, door.status) and door.large in words, f"{door}: {status} {words}"
    assert peak() - before < 64 << 20


@asynccontextmanager
async def connected(
    here: Client, *, small: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection; with `small`, of a client that takes little before it is read."""
    address, one = urlsplit(here.url), socket.socket()
    if small:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.setblocking(False)
    await asyncio.get_running_loop().sock_connect(one, (address.hostname, address.port))
    reader, writer = await asyncio.open_connection(sock=one, limit=1024 if small else 1 << 16)
    async with asyncio.timeout(60):
        yield reader, writer
    writer.transport.abort()


def head(door: Door, *more: str) -> bytes:
    return "\r\n".join([f"POST {door.path} HTTP/1.1", "Host: a", f"Content-Type: {door.kind}", *more, "", ""]).encode()


def open_ones(here: Client) -> set[Patient]:
    """The service's connections."""
    assert here.app.runner is not None and here.app.runner.server is not None
    return set(here.app.runner.server.connections)  # type: ignore[arg-type]


async def all_closed(here: Client, but: set[Patient] = frozenset()) -> None:
    async with asyncio.timeout(60):
        while open_ones(here) - but:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("length", [1000, (1 << 63) - 1])
async def test_a_body_that_never_comes_is_told_and_its_connection_closed_at_every_door(
    here: Client, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """Whatever length it says that it has: nothing is kept for it."""
    monkeypatch.setattr("service.http.respond.BODY_TIMEOUT_S", 0.3)
    monkeypatch.setattr("service.http.intake.BODY_TIMEOUT_S", 0.3)
    assert here.app.runner is not None and here.app.runner.server is not None
    monkeypatch.setitem(here.app.runner.server._kwargs, "lingering_time", 0.1)  # else it reads on for LINGER_S
    before = peak()

    async def ask(door: Door) -> None:
        async with connected(here) as (reader, writer):
            writer.write(head(door, f"Content-Length: {length}") + door.cut[:5])
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 504 ") and b"arrive" in answer, f"{door}: {answer!r}"

    for start in range(0, len(DOORS), 4):  # no more batches at a time than may be
        await asyncio.gather(*(ask(door) for door in DOORS[start : start + 4]))
    await all_closed(here)
    assert peak() - before < 16 << 20


@pytest.mark.parametrize(
    "wrong",
    [["Content-Length: 99999999999999999999999"], ["Content-Length: -1"], ["Content-Length: 5", "Content-Length: 6"],
     ["Content-Length: 5", "Transfer-Encoding: chunked"], ["Transfer-Encoding: chunked", "X: y"]],
)  # fmt: skip
async def test_a_frame_that_is_none_is_refused_at_every_door(here: Client, wrong: list[str]) -> None:
    """Lengths that are no length, or two; and a chunk larger than any."""
    for door in DOORS:
        async with connected(here) as (reader, writer):
            writer.write(head(door, *wrong) + b"FFFFFFFFFFFFFFFFF\r\nab\r\n")
            answer = await reader.read()
            assert b" 400 Bad Request\r\n" in answer[:30], f"{door}: {answer!r}"


async def test_a_client_that_goes_away_in_the_middle_leaves_nothing_at_any_door(here: Client) -> None:
    for door in DOORS:
        async with connected(here) as (_, writer):
            writer.write(head(door, "Content-Length: 1000") + door.cut[:5])
            await writer.drain()
    await all_closed(here)


@pytest.mark.parametrize(
    "sent", [b"P", b"POST /v1/rank HTTP/1.1\r\nHost: a\r\nX: ", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /"]
)
async def test_a_head_that_does_not_end_is_waited_for_a_while(
    here: Client, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """However slowly it drips, and also behind a request that is answered."""
    monkeypatch.setattr(patience, "HEAD_S", 0.3)
    async with connected(here) as (reader, writer):
        writer.write(sent)

        async def drip() -> None:
            while not writer.transport.is_closing():
                writer.write(b"a")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
        dripping.cancel()
    assert (b'"alive"' in answer) == sent.endswith(b"GET /")


async def result_of(here: Client, size: int) -> bytes:
    """Asks for the result of a job that has so many bytes."""
    job = (await here.post("/v1/jobs", {"user_ids": ["u1"]}, 202))["id"]
    while not json.loads((await here.get(f"/v1/jobs/{job}"))[1])["ended_at"]:
        await asyncio.sleep(0.02)
    folder = here.app.directory / "jobs" / job
    (folder / "result.ndjson").write_bytes(b"x" * size)
    progress = json.loads((folder / "progress.json").read_bytes())
    (folder / "progress.json").write_text(json.dumps({**progress, "size": size}))
    return b"GET /v1/jobs/%s/result HTTP/1.1\r\nHost: a\r\n\r\n" % job.encode()


@pytest.mark.parametrize("what", ["answers", "one by one", "features", "document", "result"])
async def test_a_client_that_takes_nothing_is_closed_and_nothing_piles_up(
    here: Client, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whoever asks again and again and reads nothing. Of a job's result no more is read than is taken."""
    monkeypatch.setattr(patience, "TAKE_S", 0.4)
    body, users = text({"user_id": "u1", "count": 200}), text({**USERS, "entities": {"user_id": ["u1"] * 5000}})
    asked = {
        "answers": head(DOORS[0], f"Content-Length: {len(body)}") + body,
        "features": head(DOORS[10], f"Content-Length: {len(users)}") + users,
        "document": b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n",
        "result": await result_of(here, 64 << 20),
    }
    before, others = peak(), open_ones(here)
    async with connected(here, small=True) as (_, writer):
        if what == "one by one":
            while not writer.transport.is_closing():
                writer.write(asked["answers"])
                await asyncio.sleep(0.002)
        else:
            writer.write(asked[what] * (1 if what == "result" else 500))
        await all_closed(here, others)
    assert peak() - before < 32 << 20


async def test_what_nobody_took_is_thrown_away_when_its_connection_has_been_idle(
    deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is closed would else stay until it is taken."""
    monkeypatch.setattr(patience, "TAKE_S", 0.3)
    monkeypatch.setattr("service.app.KEEPALIVE_S", 0.3)
    async with running(deployment) as here, connected(here, small=True) as (_, writer):
        while not open_ones(here):
            await asyncio.sleep(0.01)
        one = open_ones(here).pop()
        assert one.transport is not None
        one.transport.set_write_buffer_limits(1 << 30)  # so that it is never full
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
        await all_closed(here)


class Stuck(asyncio.Transport):
    """A transport with bytes left in it."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left, self.aborted = left, False

    def get_write_buffer_size(self) -> int:
        return self.left

    def is_closing(self) -> bool:
        return True

    def abort(self) -> None:
        self.aborted = True


async def test_a_client_that_reads_slowly_is_not_closed(here: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as less waits for it than a while before. One that is being closed is waited for in the same way."""
    monkeypatch.setattr(patience, "TAKE_S", 3600)
    async with connected(here) as (_, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        while not open_ones(here):
            await asyncio.sleep(0.01)
        one, transport = open_ones(here).pop(), Stuck(1000)
        one.watch_taking(transport)
        for left in (999, 500, 1):
            transport.left = left
            assert one.taking is not None
            one.taking.cancel()
            one.look_at_taking(transport, left + 1)
            assert not transport.aborted
        one.look_at_taking(transport, 1)
        assert transport.aborted
