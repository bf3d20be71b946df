"""The doors of `make bench-doors` for one user a request, as a client asks them: requests as bytes that are made ahead,
answers as bytes, of which only the first is looked into. Those for many users are in `infra.doors_batch`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, NamedTuple

import grpc.aio
import orjson

from load.errors import LoadError
from load.http1 import Answer, Connection, Target, encode_request
from load.processes import usage
from service.accept import JSON, PROTOBUF
from service.http.answers import RANK, RECOMMENDATIONS
from service.rpc.health import SERVICE as HEALTH
from service.rpc.stubs import recommendations_pb2 as pb

CLIENTS = 4
"""Requests that are under way at a time where CPU is measured."""
DIFFERENT = 256
"""Requests of each kind, over and over."""
ALIVE, READY, CHECK = "GET /healthz", "GET /readyz", "gRPC health Check"
HTTP_JSON, HTTP_PROTOBUF, GRPC = "JSON", "Protobuf over HTTP", "gRPC"
HTTP_NDJSON, HTTP_ARROW, STREAM = "NDJSON", "Arrow", "gRPC stream"
METHODS = {RECOMMENDATIONS: "Recommend", RANK: "Rank"}
RPC = f"/{pb.DESCRIPTOR.services_by_name['Recommendations'].full_name}/"
WIDEST = [("grpc.max_receive_message_length", 16 << 20)]

Ask = Callable[[bytes], Any]
"""Sends one request and waits for the body of its answer."""


class Cell(NamedTuple):
    """What is measured: a door, the endpoint behind it, items of an answer, users of a request (0: no batch)."""

    door: str
    path: str
    items: int
    users: int = 0


@dataclass(frozen=True)
class Shop:
    """Where the service is, its process, and what is asked about."""

    port: int
    rpc_port: int
    pid: int
    users: Sequence[str]
    item_ids: Sequence[str]

    @property
    def target(self) -> Target:
        return Target("127.0.0.1", self.port, False, "")


@dataclass
class Round:
    """What one turn came to: users (or requests) answered in `wall_s`, with `cpu_s` of the service and `size` bytes of
    bodies for all of them. Of those that were alone, one after the other: `took_s` of each (of a batch for the whole),
    `alone_cpu_s` for all of them. `first_s`: until the first answer of each batch."""

    asked: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    size: int = 0
    took_s: list[float] = field(default_factory=list)
    alone_cpu_s: float = 0.0
    first_s: list[float] = field(default_factory=list)


async def single(shop: Shop, cell: Cell, seconds: float) -> Round:
    """CPU with CLIENTS at a time, then latency with one: where nothing waits for another, it is the door's own."""
    payloads, found = list(islice(payloads_of(shop, cell), DIFFERENT)), Round()
    async with AsyncExitStack() as stack:
        asks = [await stack.enter_async_context(opened(shop, cell)) for _ in range(CLIENTS)]
        for ask in asks:
            check(cell, await ask(payloads[0]))
        before, began = usage([shop.pid]).cpu, time.perf_counter()
        told = await asyncio.gather(
            *(closed_loop(ask, payloads[number:], began + seconds) for number, ask in enumerate(asks))
        )
        found.wall_s, found.cpu_s = time.perf_counter() - began, usage([shop.pid]).cpu - before
        found.asked, found.size = sum(len(took) for took, _ in told), sum(size for _, size in told)
        before = usage([shop.pid]).cpu
        found.took_s, _ = await closed_loop(asks[0], payloads, time.perf_counter() + seconds)
        found.alone_cpu_s = usage([shop.pid]).cpu - before
    return found


async def closed_loop(ask: Ask, payloads: Sequence[bytes], until: float) -> tuple[list[float], int]:
    """One request after the other; how long each took, and the bytes of their answers."""
    took, size = [], 0
    for payload in cycle(payloads):
        if (began := time.perf_counter()) >= until:
            break
        size += len(await ask(payload))
        took.append(time.perf_counter() - began)
    return took, size


def payloads_of(shop: Shop, cell: Cell) -> Iterator[bytes]:
    """Requests without an end, as the bytes that the door is sent."""
    if cell.door in (ALIVE, READY):
        yield from cycle([encode_request(shop.target, "GET", cell.path, {}, None)])
    if cell.door == CHECK:
        yield from cycle([b""])
    for fields in requests(shop, cell):
        if cell.door == HTTP_JSON:
            yield encode_request(shop.target, "POST", cell.path, {"Accept": JSON}, orjson.dumps(fields))
            continue
        message = (pb.RecommendRequest if cell.path == RECOMMENDATIONS else pb.RankRequest)(**fields)
        body = message.SerializeToString()
        headers = {"Content-Type": PROTOBUF, "Accept": PROTOBUF}
        yield body if cell.door == GRPC else encode_request(shop.target, "POST", cell.path, headers, body)


def requests(shop: Shop, cell: Cell) -> Iterator[dict[str, Any]]:
    """For one user after the other, and to rank the items that follow those of the one before."""
    items = cycle(shop.item_ids)
    for user in cycle(shop.users):
        asked = {"count": cell.items} if cell.path == RECOMMENDATIONS else {"item_ids": list(islice(items, cell.items))}
        yield {"user_id": user, **asked}


@asynccontextmanager
async def opened(shop: Shop, cell: Cell) -> AsyncIterator[Ask]:
    if cell.door in (GRPC, CHECK):
        method = f"/{HEALTH}/Check" if cell.door == CHECK else RPC + METHODS[cell.path]
        async with channel(shop) as one:
            yield one.unary_unary(method)
        return
    kept = Kept()
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: kept.connection, "127.0.0.1", shop.port)
    try:
        yield kept.ask
    finally:
        kept.connection.close()


def channel(shop: Shop) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{shop.rpc_port}", options=WIDEST)


class Kept:
    """One connection of HTTP, kept."""

    def __init__(self) -> None:
        self.connection = Connection(self.answered, self.lost)
        self.waiting: asyncio.Future[Answer] | None = None

    async def ask(self, payload: bytes) -> bytes:
        """The body. Raises LoadError for another status than 200."""
        self.waiting = asyncio.get_running_loop().create_future()
        self.connection.send(payload)
        answer = await self.waiting
        if answer.status != 200:
            raise LoadError(f"{answer.status}: {answer.body[:300]!r}")
        return answer.body

    def answered(self, _: Connection, answer: Answer) -> None:
        if self.waiting is not None:
            self.waiting.set_result(answer)

    def lost(self, _: Connection, reason: str) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(LoadError(f"the connection was lost: {reason}"))


def check(cell: Cell, body: bytes) -> None:
    """Raises LoadError for an answer that is not whole."""
    if cell.door in (ALIVE, READY, CHECK):
        return
    if cell.door == HTTP_JSON:
        answer = orjson.loads(body)
        whole(cell, len(answer["items"]), answer["degraded"])
    else:
        message = pb.Recommendation.FromString(body)
        whole(cell, len(message.items), list(message.degraded))


def whole(cell: Cell, items: int, degraded: Sequence[str]) -> None:
    if items != cell.items or degraded:
        raise LoadError(f"{cell.door} answered with {items} items, expected {cell.items}; degraded: {list(degraded)}")
