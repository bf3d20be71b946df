"""gRPC's transport: channels that are open from the beginning, of which each has a connection of its own.

`sent` is the moment at which gRPC is handed a call. Its library has threads, which write it to the socket.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from load.client import Exchange, Finish
from load.errors import LoadError
from load.rpc.calls import RANK, RECOMMEND, RECORD_EVENTS, RpcCall
from load.rpc.stubs import recommendations_pb2 as pb

READY, FAILING = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.name
TIMING = "server-timing"
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.use_local_subchannel_pool", 1),  # or all channels would share a connection
    ("grpc.primary_user_agent", "endcap-load"),
    ("grpc.enable_http_proxy", 0),
    # A call that fails is an outcome, not a reason to send it again.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", -1),
    # Between two attempts to connect again, in which every call fails: by default up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Answer(NamedTuple):
    """See Answered. `status` is the name of a gRPC status, `reply` a message of `method`'s where that is OK."""

    status: str
    server_timing: str
    method: str
    reply: bytes
    server: str = ""

    @property
    def ok(self) -> bool:
        """See Answered."""
        return self.status == "OK"

    def degraded(self) -> list[str]:
        """See Answered."""
        if self.method == RECORD_EVENTS:
            return []
        try:
            return list(pb.Recommendation.FromString(self.reply).degraded)
        except DecodeError as error:
            raise ValueError(str(error)) from error


class Channels:
    """See Transport. Calls go to the channels in turn; how many one carries at once is between gRPC and the server."""

    def __init__(self, host: str, port: int, count: int) -> None:
        """`count` channels."""
        self._host, self._port, self._count = host, port, count
        self._finish: Finish[RpcCall]
        self._channels: list[grpc.aio.Channel] = []
        self._watching: list[asyncio.Task[None]] = []
        self._calls: set[asyncio.Task[None]] = set()
        self.opened = self.connect_failures = 0

    async def open(self, finish: Finish[RpcCall], patience: float) -> None:
        """See Transport: all of them."""
        self._finish = finish
        try:
            async with asyncio.timeout(patience):
                await self._reach()
                where = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
                self._channels = [grpc.aio.insecure_channel(where, OPTIONS) for _ in range(self._count)]
                await asyncio.gather(*map(self._ready, self._channels))
        except OSError as error:  # TimeoutError is one too
            where = f"{self._host}:{self._port}"
            raise LoadError(f"cannot connect to {where}: {str(error) or 'no answer'}") from error
        self._watching = [asyncio.ensure_future(self._watch(channel)) for channel in self._channels]
        self._turns = itertools.cycle([_methods(channel) for channel in self._channels])

    def send(self, exchange: Exchange[RpcCall]) -> None:
        """See Transport."""
        task = asyncio.ensure_future(self._call(next(self._turns), exchange))
        self._calls.add(task)  # asyncio itself holds tasks weakly
        task.add_done_callback(self._calls.discard)

    async def close(self) -> None:
        """See Transport."""
        ending = [*self._calls, *self._watching]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def _reach(self) -> None:
        """gRPC does not tell why it cannot connect; the system does."""
        _, writer = await asyncio.open_connection(self._host, self._port)
        writer.close()

    async def _ready(self, channel: Any) -> None:
        state = channel.get_state(try_to_connect=True)
        while state != READY:
            if state == FAILING:
                raise ConnectionError("no gRPC is spoken there")
            await channel.wait_for_state_change(state)
            state = channel.get_state()
        self.opened += 1

    async def _watch(self, channel: Any) -> None:
        """Count what gRPC does by itself: a connection that breaks is made again for the next call."""
        state = READY
        while True:
            await channel.wait_for_state_change(state)
            state = channel.get_state()
            self.opened += state == READY
            self.connect_failures += state == FAILING

    async def _call(self, methods: dict[str, Any], exchange: Exchange[RpcCall]) -> None:
        asked = exchange.planned.payload
        exchange.sent = time.monotonic()
        messages = asked.messages if asked.method == RECORD_EVENTS else asked.messages[0]
        call = methods[asked.method](messages, metadata=asked.metadata)
        try:
            reply: bytes = await call
        except grpc.aio.AioRpcError as error:
            now, status, reply, trailing = time.monotonic(), error.code().name, b"", error.trailing_metadata()
        else:
            now, status, trailing = time.monotonic(), "OK", await call.trailing_metadata()
        if status == UNAVAILABLE and not trailing:
            # Nothing of the server's is in it: it was not reached, or the connection broke. gRPC does not say which.
            self._finish(exchange, now, None, UNAVAILABLE)
        else:
            self._finish(exchange, now, Answer(status, _timing(trailing), asked.method, reply), None)


def _methods(channel: Any) -> dict[str, Any]:
    """What is called, by its name. Messages and replies are bytes, made before and read after."""
    unary = {name: channel.unary_unary(name) for name in (RECOMMEND, RANK)}
    return {**unary, RECORD_EVENTS: channel.stream_unary(RECORD_EVENTS)}


def _timing(trailing: Iterable[tuple[str, Any]] | None) -> str:
    return ", ".join(value for name, value in trailing or () if name == TIMING)
