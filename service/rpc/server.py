"""The gRPC transport: a port of its own, the services on it, and what a connection may ask of us.

Imported only where the port is set (`grpc.port`), and in the process that serves: its library has threads, which do not
outlive a fork.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc.aio

from service.config import GrpcConfig
from service.errors import ServiceError
from service.http.intake import EventDoor
from service.recommend import Recommender
from service.rpc.answers import Answers
from service.rpc.calls import AnswerObserver, observed
from service.rpc.health import SERVICE as HEALTH
from service.rpc.health import Health
from service.rpc.patience import Patience
from service.rpc.reflection import ALPHA, V1, Reflection
from service.rpc.stream import Streams
from service.rpc.stubs import recommendations_pb2 as pb

SERVICE: str = pb.DESCRIPTOR.services_by_name["Recommendations"].full_name

HANDSHAKE_S = 5.0
"""What a connection gets to say that it speaks HTTP/2."""
PING_S, PONG_S = 20.0, 10.0
"""A connection that says nothing for so long is asked whether it is there, and closed where no answer comes."""
LEAST_PING_S = 10.0
"""A client that asks that more often is told to be calm, and then closed."""
IDLE_CONNECTION_S = 300.0


def worth_telling(record: logging.LogRecord) -> bool:
    """Whether the log is to have it. gRPC tells of each call whose client goes while its reply is under way, with a
    traceback, as an error: anybody could fill our log with those."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


logging.getLogger("grpc._cython.cygrpc").addFilter(worth_telling)


class RpcServer:
    """The door. `answering` and `events` are as `Answers` has them, `why_not_ready` as `Health` does; `more` adds
    further services, by their names."""

    def __init__(
        self, answering: Callable[[], Recommender], events: Callable[[], EventDoor | None], observer: AnswerObserver,
        why_not_ready: Callable[[], Awaitable[str | None]], settings: GrpcConfig, *,
        max_message_bytes: int, drain_s: float,
        more: Mapping[str, Callable[[grpc.aio.Server, Patience], None]] | None = None,
    ) -> None:  # fmt: skip
        self.observer, self.settings, self.drain_s = observer, settings, drain_s
        self.max_message_bytes = max_message_bytes
        self.patience = Patience(settings.idle_s, settings.stall_s)
        self.answers = Answers(answering, events, observer, self.patience)
        self.more = more or {}
        self.names = (SERVICE, HEALTH, V1, ALPHA, *self.more)
        self.health = Health(self.names, why_not_ready, self.patience)
        self.server: Any = None
        self.port = 0

    async def start(self, host: str, port: int, *, shared: bool) -> int:
        """Opens the port and returns it. Raises ServiceError when it is taken. `shared`: others listen on it too."""
        self.server = grpc.aio.server(options=self.options(shared=shared))
        handlers = (self.recommendations(), self.health.handler(), *Reflection(self.names, self.patience).handlers())
        self.server.add_generic_rpc_handlers(handlers)
        for add_to in self.more.values():
            add_to(self.server, self.patience)
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = self.server.add_insecure_port(where)
        except RuntimeError as error:
            raise ServiceError(
                f"cannot listen for gRPC on {where}: it is in use, or no address of this machine"
            ) from error
        await self.server.start()
        return self.port

    def options(self, *, shared: bool) -> list[tuple[str, int]]:
        """gRPC's own names. What they bound is of one connection."""
        return [
            ("grpc.so_reuseport", int(shared)),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_concurrent_streams", self.settings.max_streams),
            ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_S * 1e3)),
            ("grpc.keepalive_time_ms", int(PING_S * 1e3)),
            ("grpc.keepalive_timeout_ms", int(PONG_S * 1e3)),
            ("grpc.http2.ping_timeout_ms", int(PONG_S * 1e3)),  # of those by which it measures the line
            ("grpc.http2.min_ping_interval_without_data_ms", int(LEAST_PING_S * 1e3)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_connection_idle_ms", int(IDLE_CONNECTION_S * 1e3)),
            ("grpc.max_connection_age_ms", int(self.settings.max_connection_age_s * 1e3)),
            ("grpc.max_connection_age_grace_ms", int(self.settings.idle_s * 1e3)),
        ]

    def recommendations(self) -> Any:
        answers = self.answers

        def single(name: str, serve: Any) -> Any:
            # As a stream of requests, one of which is read: so we say how long it may take to come.
            return grpc.stream_unary_rpc_method_handler(observed(f"/{SERVICE}/{name}", serve, self.observer))

        streams = Streams(f"/{SERVICE}/RecommendStream", answers, self.patience)
        methods = {
            "Recommend": single("Recommend", answers.recommend_call),
            "Rank": single("Rank", answers.rank_call),
            "RecommendStream": grpc.stream_stream_rpc_method_handler(streams.handle),
            "RecordEvents": single("RecordEvents", answers.record_events),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def stop(self) -> None:
        """Not serving, no new connections, what has come is answered; who has not taken his answer then loses it."""
        self.patience.drain()
        await self.server.stop(self.drain_s)
