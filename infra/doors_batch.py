"""The doors of `make bench-doors` for many users a request. All answers are looked at: one that fails, fails alone."""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import orjson
import pyarrow as pa

from infra.doors import DIFFERENT, HTTP_ARROW, HTTP_NDJSON, RPC, Cell, Round, Shop, channel, requests, whole
from load.errors import LoadError
from load.processes import usage
from service.accept import ARROW, NDJSON
from service.http.batch import BATCH
from service.rpc.stubs import recommendations_pb2 as pb


def batches(shop: Shop, cell: Cell, seconds: float) -> Round:
    """One batch after the other over HTTP."""
    kind, found = (ARROW if cell.door == HTTP_ARROW else NDJSON), Round()
    read = read_arrow if cell.door == HTTP_ARROW else read_lines
    bodies = [body_of(cell, group) for group in groups(shop, cell)]
    connection = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=600)
    connection.connect()
    before, start = usage([shop.pid]).cpu, time.perf_counter()
    for body in cycle(bodies):
        began = time.perf_counter()
        connection.request("POST", cell.path + BATCH, body, {"Content-Type": kind, "Accept": kind})
        response = connection.getresponse()
        if response.status != 200:
            raise LoadError(f"{response.status}: {response.read()[:300]!r}")
        first, size = read(cell, response)
        took(found, cell, size, began, first)
        if time.perf_counter() - start >= seconds:
            break
    found.wall_s, found.cpu_s = time.perf_counter() - start, usage([shop.pid]).cpu - before
    connection.close()
    return found


async def streams(shop: Shop, cell: Cell, seconds: float) -> Round:
    """One call of RecommendStream after the other, its requests as fast as they are taken."""
    found = Round()
    calls = [[stream_request(one) for one in group] for group in groups(shop, cell)]
    async with channel(shop) as one:
        ask = one.stream_stream(RPC + "RecommendStream")
        await one.channel_ready()
        before, start = usage([shop.pid]).cpu, time.perf_counter()
        for messages in cycle(calls):
            began, first, size, answers = time.perf_counter(), 0.0, 0, 0
            async for data in ask(iter(messages), metadata=[("endcap-priority", "bulk")]):
                first = first or time.perf_counter()
                size += len(data)
                reply = pb.StreamReply.FromString(data)
                whole(cell, len(reply.recommendation.items), [*reply.recommendation.degraded, *reply.problem.detail])
                answers += 1
            complete(cell, answers)
            took(found, cell, size, began, first)
            if time.perf_counter() - start >= seconds:
                break
        found.wall_s, found.cpu_s = time.perf_counter() - start, usage([shop.pid]).cpu - before
    return found


def took(found: Round, cell: Cell, size: int, began: float, first: float) -> None:
    found.asked, found.size = found.asked + cell.users, found.size + size
    found.took_s.append(time.perf_counter() - began)
    found.first_s.append(first - began)


def groups(shop: Shop, cell: Cell) -> list[list[dict[str, Any]]]:
    """The requests of some batches, each of other users as long as there are others."""
    wanted = requests(shop, cell)
    return [list(islice(wanted, cell.users)) for _ in range(max(1, min(DIFFERENT, len(shop.users) // cell.users)))]


def body_of(cell: Cell, group: Sequence[dict[str, Any]]) -> bytes:
    if cell.door == HTTP_NDJSON:
        return b"".join(orjson.dumps(one) + b"\n" for one in group)
    table, sink = pa.Table.from_pylist(list(group)), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def stream_request(fields: dict[str, Any]) -> bytes:
    message: bytes = pb.StreamRequest(id=fields["user_id"], recommend=fields).SerializeToString()
    return message


def read_lines(cell: Cell, response: http.client.HTTPResponse) -> tuple[float, int]:
    """When the first answer came, and the bytes of all."""
    parts = [response.read1(1 << 16)]
    first = time.perf_counter()
    while part := response.read1(1 << 16):
        parts.append(part)
    lines = (data := b"".join(parts)).splitlines()
    if b'"problem":' in data:
        raise LoadError(f"not all were answered: {next(line for line in lines if b'problem' in line)[:300]!r}")
    complete(cell, len(lines))
    answer = orjson.loads(lines[0])["recommendation"]
    whole(cell, len(answer["items"]), answer["degraded"])
    return first, len(data)


def read_arrow(cell: Cell, response: http.client.HTTPResponse) -> tuple[float, int]:
    """When the first record batch came (the schema has no answer), and the bytes of all."""
    counted, answers, first = Counted(response), 0, 0.0
    with pa.ipc.open_stream(counted) as stream:
        for batch in stream:
            first = first or time.perf_counter()
            answers += batch.num_rows
            if batch["status"].null_count < batch.num_rows:
                raise LoadError(f"not all were answered: {batch['detail'].drop_null()[0]}")
            whole(cell, len(batch["item_ids"][0]), batch["degraded"][0].as_py())
    response.read()
    complete(cell, answers)
    return first, counted.size


class Counted(io.RawIOBase):
    """A response that knows how much of it was read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.response, self.size = response, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self.response.readinto(buffer)
        self.size += read
        return read


def complete(cell: Cell, answers: int) -> None:
    if answers != cell.users:
        raise LoadError(f"{cell.door} answered {answers} of {cell.users} users")
