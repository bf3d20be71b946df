"""What a client of the gRPC door can do wrong: a clear error, nothing kept, others answered meanwhile."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest

from ranking.errors import EngineStopped
from service.config import OipConfig, read_config
from service.errors import DeadlineExceeded
from service.rpc import inference, server
from service.rpc.codec import MOST_NAMED
from service.rpc.patience import Patience
from service.rpc.stubs import recommendations_pb2 as pb
from tests.service.conftest import counted
from tests.service.rpc_client import SERVICE, Rpc, asked, channel_to, refused, serving

Code = grpc.StatusCode
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW = 4
"""The number of SETTINGS_INITIAL_WINDOW_SIZE."""


@pytest.fixture
async def rpc(deployment: Path) -> AsyncIterator[Rpc]:
    async with serving(deployment) as one:
        yield one
        assert (await one.stub.Recommend(asked(count=1))).items, "others are not answered any more"


def raw(rpc: Rpc, method: str = "Recommend") -> Any:
    """Sends bytes, whatever they are."""
    return rpc.channel.unary_unary(f"/{SERVICE}/{method}", None, pb.Recommendation.FromString)


# What no message is

UNREADABLE = [
    (b"\x0a\xff", "malformed-body"),  # a string longer than the message
    (b"\x0a\xff\xff\xff\xff\x07", "malformed-body"),  # and by two thousand millions
    (b"\x0a\x02\xff\xfe", "malformed-body"),  # no UTF-8
    (b"\xff" * 20, "malformed-body"),
    (b"\x0b" * 200, "malformed-body"),  # groups in groups
]


@pytest.mark.parametrize(("data", "reason"), UNREADABLE, ids=repr)
async def test_bytes_that_are_no_message_are_refused(rpc: Rpc, data: bytes, reason: str) -> None:
    found = await refused(raw(rpc)(data))
    assert (found.code, found.info.reason) == (Code.INVALID_ARGUMENT, reason), found
    assert "endcap.v1.RecommendRequest" in found.message


UNKNOWN = [
    (b"\x08\x05", {"user_id": "Sent as varint, which is another type's"}),
    (asked().SerializeToString() + b"\x78\x01", {"15": "Unknown field number, sent as varint"}),
    (b"\x12\x02\x78\x01", {"session.15": "Unknown field number, sent as varint"}),
    (b"\x32\x07\x0a\x01a\x12\x02\x78\x01", {"context.a.15": "Unknown field number, sent as varint"}),
    (b"\x28\x05\x2d\x00\x00\x00\x00", {"count": "Sent as fixed32, which is another type's"}),
]


@pytest.mark.parametrize(("data", "fields"), UNKNOWN, ids=repr)
async def test_a_field_that_we_do_not_know_is_named_and_so_is_one_of_a_wrong_type(
    rpc: Rpc, data: bytes, fields: dict[str, str]
) -> None:
    found = await refused(raw(rpc)(data))
    assert (found.code, found.info.reason, found.fields) == (Code.INVALID_ARGUMENT, "invalid-request", fields)


async def test_a_great_many_unknown_fields_are_not_counted_out(rpc: Rpc) -> None:
    found = await refused(raw(rpc)(b"\x78\x01" * MOST_NAMED))
    assert found.fields == {"": "has fields that the proto file does not know"}


async def test_a_message_that_is_too_large_is_refused_also_when_it_is_compressed(rpc: Rpc) -> None:
    """A megabyte of zeros is a kilobyte of gzip; what counts is what it becomes."""
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        found = await refused(raw(rpc)(bytes(50 << 20), compression=compression))
        assert found.code == Code.RESOURCE_EXHAUSTED and "larger than max" in found.message
    small = asked(count=2).SerializeToString()
    assert len((await raw(rpc)(small, compression=grpc.Compression.Gzip)).items) == 2


async def test_a_method_that_there_is_not_is_said(rpc: Rpc) -> None:
    assert (await refused(raw(rpc, "Recommed")(b""))).code == Code.UNIMPLEMENTED


# What no well-behaved client sends: HTTP/2 by hand


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113, 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def opening(stream: int, method: str = "Recommend", service: str = SERVICE) -> bytes:
    """The head of a call, every field as a literal (RFC 7541, 6.2.2)."""
    fields = {":method": "POST", ":scheme": "http", ":path": f"/{service}/{method}", ":authority": "localhost",
              "content-type": "application/grpc", "te": "trailers"}  # fmt: skip
    block = b"".join(
        bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields.items()
    )
    return frame(HEADERS, END_HEADERS, stream, block)


def message(data: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BI", 0, len(data) if length is None else length) + data


class Http2:
    """A connection. It acknowledges settings and pings, and keeps count of which streams have ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.ended = reader, writer, set[int]()

    async def until_ended(self, *streams: int) -> None:
        async with asyncio.timeout(30):
            while not self.ended.issuperset(streams):
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3]))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
                if kind in (SETTINGS, PING) and not flags & ACK:
                    self.writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))
                elif kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
                    self.ended.add(stream)


@asynccontextmanager
async def http2(rpc: Rpc, settings: bytes = b"") -> AsyncIterator[Http2]:
    reader, writer = await asyncio.open_connection("127.0.0.1", rpc.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))
    yield Http2(reader, writer)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def ended_with(rpc: Rpc, status: str, method: str = "Recommend", service: str = SERVICE) -> float:
    _, scrape = await rpc.http.get("/metrics")
    return counted(scrape, "endcap_requests_total", endpoint=f"/{service}/{method}", status=status)


async def test_a_truncated_message_is_refused(rpc: Rpc) -> None:
    """It says that it is longer than what then comes."""
    whole = asked().SerializeToString()
    async with http2(rpc) as one:
        one.writer.write(opening(1) + frame(DATA, END_STREAM, 1, message(whole, len(whole) + 50)))
        one.writer.write(opening(3) + frame(DATA, END_STREAM, 3, b"\x00\x00\x00"))
        one.writer.write(opening(5) + frame(DATA, END_STREAM, 5))
        await one.until_ended(1, 3, 5)
    assert await ended_with(rpc, "200") == 0 and await ended_with(rpc, "400") == 3


async def test_a_message_of_a_malicious_length_takes_no_memory(rpc: Rpc) -> None:
    before = resident()
    async with http2(rpc) as one:
        for stream in range(1, 101, 2):
            one.writer.write(opening(stream) + frame(DATA, 0, stream, message(b"x" * 100, 0xFFFFFFFF)))
        await one.until_ended(*range(1, 101, 2))
    assert resident() - before < 64 << 20
    assert await ended_with(rpc, "200") == 0


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_a_call_on_which_no_message_comes_is_ended(deployment: Path) -> None:
    async with serving(deployment, stall_s=0.3) as rpc, http2(rpc) as one:
        for stream, method in enumerate(("Recommend", "Rank", "RecordEvents")):
            one.writer.write(opening(2 * stream + 1, method))
        one.writer.write(opening(7) + frame(DATA, 0, 7, message(asked().SerializeToString())[:-3]))
        await one.until_ended(1, 3, 5, 7)
        assert [await ended_with(rpc, "504", method) for method in ("Recommend", "Rank", "RecordEvents")] == [2, 1, 1]


async def test_so_is_one_on_which_no_tensors_come(deployment: Path) -> None:
    """Of the models themselves: nothing at all, half a message, a message that is longer than the call, and none."""
    config = msgspec.structs.replace(read_config(deployment), oip=OipConfig(enabled=True))
    async with serving(deployment, config, stall_s=0.3) as rpc, http2(rpc) as one:
        for stream in (1, 3, 5, 7):
            one.writer.write(opening(stream, "ModelInfer", inference.SERVICE))
        half = message(bytes(100), 0xFFFF)
        one.writer.write(frame(DATA, 0, 3, half) + frame(DATA, END_STREAM, 5, half) + frame(DATA, END_STREAM, 7))
        await one.until_ended(1, 3, 5, 7)
        assert [await ended_with(rpc, status, "ModelInfer", inference.SERVICE) for status in ("504", "400")] == [2, 2]


class Silent:
    """A call on which nothing comes."""

    async def read(self) -> None:
        await asyncio.Event().wait()


async def test_who_is_waited_for_longer_does_not_make_another_wait_so_long() -> None:
    """One timer serves all: whichever began first, each ends in its own time, and at the end of the service all do."""
    patience, ended = Patience(60, 60), list[float]()

    async def wait(seconds: float, error: type[Exception]) -> None:
        with pytest.raises(error):
            await patience.read(Silent(), seconds)
        ended.append(seconds)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for seconds in (0.3, 0.05, 0.6):
            group.create_task(wait(seconds, DeadlineExceeded))
        await asyncio.sleep(0)
        stays = group.create_task(wait(60, EngineStopped))
        while len(ended) < 3:
            await asyncio.sleep(0.01)
        assert ended == [0.05, 0.3, 0.6] and not stays.done()
        patience.drain()
    assert ended[3:] == [60] and not patience.waiting


async def test_health_and_reflection_do_not_wait_for_ever_either(deployment: Path) -> None:
    async with serving(deployment, stall_s=0.3, idle_s=0.3) as rpc, http2(rpc) as one:
        one.writer.write(opening(1, "Check", "grpc.health.v1.Health") + opening(3, "Watch", "grpc.health.v1.Health"))
        for stream, version in ((5, "v1"), (7, "v1alpha")):
            one.writer.write(opening(stream, "ServerReflectionInfo", f"grpc.reflection.{version}.ServerReflection"))
        await one.until_ended(1, 3, 5, 7)


async def test_a_connection_that_says_nothing_is_closed(deployment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the one that does not even speak HTTP/2 is kept, nor the one that speaks something else."""
    monkeypatch.setattr(server, "HANDSHAKE_S", 0.3)
    async with serving(deployment) as rpc:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", rpc.port)
            writer.write(said)
            async with asyncio.timeout(30):
                with suppress(ConnectionError):
                    await reader.read()
            writer.close()


async def test_a_connection_that_is_not_read_any_more_is_closed(
    deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers no ping, so what waits for it is dropped; others are answered meanwhile."""
    monkeypatch.setattr(server, "PING_S", 1.0)
    monkeypatch.setattr(server, "PONG_S", 1.0)
    async with serving(deployment) as rpc:
        async with http2(rpc, struct.pack(">HI", WINDOW, 1 << 30)) as one:
            one.writer.write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))
            one.writer.transport.pause_reading()  # type: ignore[attr-defined]
            whole = message(asked(count=200, explain=True).SerializeToString())
            for stream in range(1, 101, 2):
                one.writer.write(opening(stream) + frame(DATA, END_STREAM, stream, whole))
            async with asyncio.timeout(60):
                while held(rpc, one.writer.get_extra_info("socket")):
                    assert (await rpc.stub.Recommend(asked(count=1))).items
                    await asyncio.sleep(0.1)
        assert rpc.app.api.answers.answering().limiter.in_flight == 0


def held(rpc: Rpc, connection: socket.socket) -> bool:
    """Whether the service still has its end of a connection. (Who reads nothing does not hear that it has not.)"""
    ours = connection.getsockname()[1]
    return any((state, port(local), port(remote)) == ("01", rpc.port, ours) for local, remote, state in connections())


def connections() -> Iterator[tuple[str, str, str]]:
    """Of every TCP socket of the machine both addresses and the state, as the kernel writes them (01: established, 0A:
    listening)."""
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            yield local, remote, state


def port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


async def test_so_many_calls_are_open_on_one_connection(deployment: Path) -> None:
    """The next one waits for its turn; another connection does not."""
    async with serving(deployment, max_streams=1) as rpc:
        stream = rpc.stub.RecommendStream()
        await stream.write(pb.StreamRequest(id="1", recommend=asked(count=1)))
        await stream.read()
        waiting = rpc.stub.Recommend(asked(count=1))
        done, _ = await asyncio.wait({asyncio.ensure_future(waiting.code())}, timeout=0.3)
        assert not done
        async with channel_to(rpc.port) as other:
            found = await other.unary_unary(f"/{SERVICE}/Recommend", None, pb.Recommendation.FromString)(
                asked(count=1).SerializeToString()
            )
            assert found.items
        await stream.done_writing()
        assert (await waiting).items
