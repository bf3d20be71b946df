"""Standard reflection, under both of its names: v1, which new tools ask for first, and v1alpha, which all know.

grpcio-reflection has v1alpha only. The two differ in nothing but the name: v1's file is made of the other's, so that a
tool that asks for it finds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import SERVICE_NAME
from grpc_reflection.v1alpha.reflection import aio as reflection

from service.rpc import codec
from service.rpc.calls import ending
from service.rpc.patience import Patience

ALPHA: str = SERVICE_NAME
V1 = ALPHA.replace("v1alpha", "v1")


def know_v1() -> None:
    """Has protobuf's pool know v1's file. A library that brings it is left alone."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(V1)
    except KeyError:
        file = FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        pool.AddSerializedFile(
            text_format.Parse(str(file).replace("v1alpha", "v1"), FileDescriptorProto()).SerializeToString()
        )


class Reflection:
    """`names`: the services that there are."""

    def __init__(self, names: Iterable[str], patience: Patience) -> None:
        know_v1()
        self.servicer, self.patience = reflection.ReflectionServicer(names), patience

    def handlers(self) -> tuple[Any, ...]:
        method = grpc.stream_stream_rpc_method_handler(self.handle)
        return tuple(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in (V1, ALPHA)
        )

    async def requests(self, context: Any) -> AsyncIterator[Any]:
        while (data := await self.patience.read(context, self.patience.idle_s)) is not None:
            yield codec.decoded(reflection_pb2.ServerReflectionRequest, data)

    async def handle(self, _: Any, context: Any) -> None:
        """Messages are bytes: what is v1alpha's here is v1's there."""
        writer = self.patience.writer(context)
        async with ending(context, V1):
            async for reply in self.servicer.ServerReflectionInfo(self.requests(context), context):
                await writer.write(reply.SerializeToString())
