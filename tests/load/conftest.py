"""Real servers for the load tests, and short ways to play traffic against them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import orjson
import pytest

from load.doors import door_of
from load.http1 import encode_post, parse_url
from load.rpc.calls import RECOMMEND, RpcCall
from load.rpc.stubs import recommendations_pb2 as pb
from tests.load.play import Way


@dataclass(frozen=True)
class Stub:
    pid: int
    port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def log(self) -> Any:
        with urllib.request.urlopen(self.url("/log")) as answer:
            return orjson.loads(answer.read())


@dataclass(frozen=True)
class RpcStub:
    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def log(self) -> Any:
        async def ask() -> Any:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
                reply = await channel.unary_unary(RECOMMEND)(asked("log").messages[0])
            return orjson.loads(pb.Recommendation.FromString(reply).inputs_json)

        return asyncio.run(ask())


def asked(placement: str) -> RpcCall:
    return RpcCall(RECOMMEND, (), (pb.RecommendRequest(placement=placement).SerializeToString(),))


@contextmanager
def running(module: str) -> Iterator[tuple[int, int]]:
    """A server in its own process, and the port that it prints."""
    with subprocess.Popen([sys.executable, "-m", module], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def stub() -> Iterator[Stub]:
    """The server of tests/load/stub.py."""
    with running("tests.load.stub") as (pid, port):
        yield Stub(pid, port)


@pytest.fixture(scope="session")
def rpc_stub() -> Iterator[RpcStub]:
    """The server of tests/load/rpc_stub.py."""
    with running("tests.load.rpc_stub") as (pid, port):
        yield RpcStub(pid, port)


@pytest.fixture(params=["http", "grpc"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each transport, to a server that behaves alike; a request is told by how it is to be treated."""
    if request.param == "http":
        stub: Stub = request.getfixturevalue("stub")
        return Way(door_of(stub.url("")), lambda how: encode_post(parse_url(stub.url(f"/{how}")), b"{}"), stub.log)
    rpc: RpcStub = request.getfixturevalue("rpc_stub")
    return Way(door_of(rpc.url), asked, rpc.log)
