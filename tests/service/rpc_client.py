"""The running service with its gRPC door, and real clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import msgspec
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from service.app import App
from service.config import Config, GrpcConfig, read_config
from service.rpc.stubs import recommendations_pb2 as pb
from service.rpc.stubs.recommendations_pb2_grpc import RecommendationsStub
from tests.service.conftest import Client

SERVICE = "endcap.v1.Recommendations"


@dataclass
class Rpc:
    """`http`: the same service's other door."""

    http: Client
    channel: Any
    port: int

    @property
    def app(self) -> App:
        return self.http.app

    @property
    def stub(self) -> Any:
        return RecommendationsStub(self.channel)


def with_grpc(config: Config, **settings: Any) -> Config:
    return msgspec.structs.replace(config, grpc=GrpcConfig(port=0, **settings))


@asynccontextmanager
async def serving(
    deployment: Path, config: Config | None = None, *, load: bool = True, **settings: Any
) -> AsyncIterator[Rpc]:
    """The service on two free ports, until the end of the block."""
    app = App(deployment, with_grpc(config or read_config(deployment), **settings))
    port = await app.listen("127.0.0.1", 0)
    assert app.rpc is not None
    if load:
        await app.load()
    async with aiohttp.ClientSession() as session, channel_to(app.rpc.port) as channel:
        yield Rpc(Client(app, session, f"http://127.0.0.1:{port}"), channel, app.rpc.port)
    if not app.draining:
        await app.stop()


def channel_to(port: int, **options: int) -> Any:
    """A channel of its own connection."""
    given = [("grpc.use_local_subchannel_pool", 1), *((f"grpc.{name}", value) for name, value in options.items())]
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=given)


@dataclass
class Refused:
    """What a client is told of a call that failed."""

    code: Any
    message: str
    info: Any
    retry: Any
    fields: dict[str, str]
    trailing: dict[str, Any]


async def refused(call: Any) -> Refused:
    """How a call fails, with its details."""
    try:
        found = await call
    except grpc.aio.AioRpcError as error:
        return told(error)
    raise AssertionError(f"it was answered: {found}")


def told(error: Any) -> Refused:
    trailing = dict(error.trailing_metadata() or ())
    status = Status.FromString(trailing.get("grpc-status-details-bin", b""))
    if status.details:
        assert (status.code, status.message) == (error.code().value[0], error.details())
    found: dict[Any, Any] = {}
    for one in status.details:
        for kind in (ErrorInfo, RetryInfo, BadRequest):
            if one.Is(kind.DESCRIPTOR):
                found[kind] = kind.FromString(one.value)
    bad = found.get(BadRequest)
    fields = {} if bad is None else {one.field: one.description for one in bad.field_violations}
    return Refused(error.code(), error.details(), found.get(ErrorInfo), found.get(RetryInfo), fields, trailing)


def asked(user_id: str = "u1", **fields: Any) -> Any:
    return pb.RecommendRequest(user_id=user_id, **fields)
