"""Standard health checking (grpc.health.v1): what `/readyz` says, also as a stream.

Written out, because grpcio-health-checking's own servicer writes to a watcher while it holds a lock: one that stops
reading would keep everybody's health as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.rpc import codec
from service.rpc.calls import ending
from service.rpc.patience import Patience

SERVICE = "grpc.health.v1.Health"
EVERY_S = 1.0
"""How often a watched service is looked at."""


class Health:
    """`names`: the services that there are; "" is all of them. `why_not_ready` says what stands in the way."""

    def __init__(
        self, names: tuple[str, ...], why_not_ready: Callable[[], Awaitable[str | None]], patience: Patience
    ) -> None:
        self.names, self.why_not_ready, self.patience = ("", *names), why_not_ready, patience

    def handler(self) -> Any:
        methods = {
            "Check": grpc.stream_unary_rpc_method_handler(self.check),
            "Watch": grpc.stream_stream_rpc_method_handler(self.watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def asked(self, context: Any) -> str:
        """The service that is asked about."""
        data = await self.patience.read(context, self.patience.stall_s)
        name: str = codec.decoded(HealthCheckRequest, data or b"").service
        return name

    async def status(self, name: str) -> Any:
        if name not in self.names:
            return HealthCheckResponse.SERVICE_UNKNOWN
        why = await self.why_not_ready()
        return HealthCheckResponse.SERVING if why is None else HealthCheckResponse.NOT_SERVING

    async def check(self, _: Any, context: Any) -> bytes:
        async with ending(context, SERVICE):
            name = await self.asked(context)
            status = await self.status(name)
            if status == HealthCheckResponse.SERVICE_UNKNOWN:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {name[:100]!r}")
        return encoded(status)

    async def watch(self, _: Any, context: Any) -> None:
        """Each change, until the service stops, which is the last one."""
        draining, writer, last = self.patience.draining, self.patience.writer(context), None
        async with ending(context, SERVICE):
            name = await self.asked(context)
            while True:
                stopping = draining.is_set()
                if (status := await self.status(name)) != last:
                    await writer.write(encoded(status))
                    last = status
                if stopping:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(draining.wait(), EVERY_S)


def encoded(status: Any) -> bytes:
    found: bytes = HealthCheckResponse(status=status).SerializeToString()
    return found
