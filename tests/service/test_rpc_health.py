"""When the gRPC door serves, who is told, and what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.app import App
from service.config import read_config
from service.errors import ServiceError
from service.rpc.reflection import ALPHA, V1
from tests.service.rpc_client import SERVICE, Rpc, asked, refused, serving

Code = grpc.StatusCode


@pytest.fixture
async def rpc(deployment: Path) -> AsyncIterator[Rpc]:
    async with serving(deployment) as one:
        yield one


async def test_health_says_what_readyz_says(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = health_pb2_grpc.HealthStub(rpc.channel)
    for name in ("", SERVICE):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status == 1
    assert (await refused(stub.Check(health_pb2.HealthCheckRequest(service="nope")))).code == Code.NOT_FOUND
    watch = aiter(stub.Watch(health_pb2.HealthCheckRequest()))
    assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
    monkeypatch.setattr(rpc.app.rpc.health, "why_not_ready", rpc_down)  # type: ignore[union-attr]
    assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def rpc_down() -> str:
    return "the store is gone"


async def test_while_it_loads_nothing_is_served_and_that_is_said(deployment: Path) -> None:
    async with serving(deployment, load=False) as rpc:
        stub = health_pb2_grpc.HealthStub(rpc.channel)
        watch = aiter(stub.Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        early = await refused(rpc.stub.Recommend(asked()))
        assert (early.code, early.info.reason) == (Code.UNAVAILABLE, "not-ready")
        found = await refused(rpc.stub.RecordEvents(iter([])))
        assert (found.code, found.info.reason) == (Code.UNAVAILABLE, "not-ready")
        await rpc.app.load()
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
        await rpc.stub.Recommend(asked())


async def test_a_stop_says_so_to_who_watches_and_answers_what_has_come(
    deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(deployment) as rpc:
        recommender = rpc.app.api.answers.answering()
        entered, go, read = asyncio.Event(), asyncio.Event(), recommender.shoppers.read

        async def held(*given: Any) -> Any:
            entered.set()
            await go.wait()
            return await read(*given)

        monkeypatch.setattr(recommender.shoppers, "read", held)
        watch = aiter(health_pb2_grpc.HealthStub(rpc.channel).Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(watch)).status == 1
        call = rpc.stub.Recommend(asked(count=2))
        await entered.wait()
        stopping = asyncio.create_task(rpc.app.stop())
        assert [one.status async for one in watch] == [2]
        assert not stopping.done()
        go.set()
        assert len((await call).items) == 2
        async with asyncio.timeout(8):
            await stopping


async def test_reflection_lists_the_services_and_has_their_files(rpc: Rpc) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(rpc.channel)
    wanted = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    services, files = [one async for one in stub.ServerReflectionInfo(iter(wanted))]
    names = {one.name for one in services.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names
    (file,) = files.file_descriptor_response.file_descriptor_proto
    found = FileDescriptorProto.FromString(file)
    assert [one.name for one in found.service[0].method] == ["Recommend", "Rank", "RecommendStream", "RecordEvents"]


async def test_reflection_answers_under_its_new_name_too_by_that_name_s_own_messages(rpc: Rpc) -> None:
    """A client that knows nothing but what v1's file says, which it is given by reflection."""
    old = reflection_pb2_grpc.ServerReflectionStub(rpc.channel)
    wanted = reflection_pb2.ServerReflectionRequest(file_containing_symbol=V1)
    (reply,) = [one async for one in old.ServerReflectionInfo(iter([wanted]))]
    pool = descriptor_pool.DescriptorPool()
    (file,) = reply.file_descriptor_response.file_descriptor_proto
    assert b"alpha" not in file
    pool.AddSerializedFile(file)
    method = pool.FindServiceByName(V1).methods_by_name["ServerReflectionInfo"]
    request, response = (message_factory.GetMessageClass(one) for one in (method.input_type, method.output_type))
    call = rpc.channel.stream_stream(
        f"/{V1}/{method.name}", request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )
    asked = [request(host="h", list_services=""), request(file_containing_symbol="none.Such")]
    services, missing = [one async for one in call(iter(asked))]
    assert {SERVICE, V1, ALPHA} <= {one.name for one in services.list_services_response.service}
    assert services.original_request.host == "h" and missing.error_response.error_code == Code.NOT_FOUND.value[0]


def test_without_a_port_there_is_no_door(deployment: Path) -> None:
    assert read_config(deployment).grpc.port is None


async def test_a_port_that_is_taken_is_said(rpc: Rpc, deployment: Path) -> None:
    config = read_config(deployment)
    config = msgspec.structs.replace(config, grpc=msgspec.structs.replace(config.grpc, port=rpc.port))
    app = App(deployment, config)
    with pytest.raises(ServiceError, match=f"cannot listen for gRPC on 127.0.0.1:{rpc.port}: it is in use"):
        await app.listen("127.0.0.1", 0)
    await app.stop()
