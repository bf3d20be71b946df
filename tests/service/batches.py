"""Bodies and answers of `:batch` in every format, for its tests."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pyarrow as pa
from google.protobuf.json_format import MessageToDict
from google.protobuf.proto import parse_length_prefixed

from service.accept import ARROW, NDJSON, PROTOBUF
from service.rpc.stubs import recommendations_pb2 as pb
from tests.service.conftest import Client

PATH, RANK = "/v1/recommendations:batch", "/v1/rank:batch"


class Numbered(msgspec.Struct):
    """Of a line only its place."""

    index: int


def stream(columns: dict[str, Any], rows: int | None = None, **options: Any) -> bytes:
    """An Arrow stream, `rows` a record batch."""
    table = pa.table(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table, rows)
    return sink.getvalue()


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def messages(*requests: dict[str, Any], **defaults: Any) -> bytes:
    """A BatchRequest."""
    told = {"defaults": pb.RecommendRequest(**defaults)} if defaults else {}
    return bytes(pb.BatchRequest(requests=[pb.RecommendRequest(**one) for one in requests], **told).SerializeToString())


def replies(source: Any) -> Iterator[Any]:
    """The BatchReply messages of an answer, to its end."""
    while (one := parse_length_prefixed(pb.BatchReply, source)) is not None:
        yield one


def as_line(reply: Any) -> dict[str, Any]:
    """A BatchReply as its line of NDJSON."""
    found = MessageToDict(reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if (answer := found.get("recommendation")) is not None and not answer["missing_item_ids"]:
        del answer["missing_item_ids"]
    return dict(found)


@asynccontextmanager
async def posted(
    client: Client, body: bytes, kind: str, accept: str | None = None, path: str = PATH
) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {"Content-Type": kind, **({"Accept": accept} if accept else {})}
    async with client.session.post(client.url + path, data=io.BytesIO(body), headers=headers) as response:
        yield response


async def answers(client: Client, body: bytes, kind: str, accept: str | None = None, path: str = PATH) -> list[Any]:
    """The outcomes, in the order of the requests."""
    async with posted(client, body, kind, accept, path) as response:
        data = await response.read()
        assert response.status == 200, data
    if response.content_type == ARROW:
        rows = pa.ipc.open_stream(data).read_all().to_pylist()
    elif response.content_type == PROTOBUF:
        rows = [as_line(one) for one in replies(io.BytesIO(data))]
    else:
        assert response.content_type == NDJSON
        rows = [msgspec.json.decode(line) for line in data.splitlines()]
    return sorted(rows, key=lambda row: row["index"])


async def refused(
    client: Client, body: bytes, kind: str, status: int, accept: str | None = None, path: str = PATH
) -> Any:
    async with posted(client, body, kind, accept, path) as response:
        data = await response.read()
        assert (response.status, response.content_type) == (status, "application/problem+json"), data
        return msgspec.json.decode(data)


def shown(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["item_id"], one["source"]) for one in answer["items"]]
