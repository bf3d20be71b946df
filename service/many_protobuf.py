"""The requests of a batch as Protobuf, and its answers: messages of proto/endcap/v1, each with its length before it.

What comes is hostile until it is checked: the fields of the whole are gone through by their lengths, none of which may
say more than there is, and no more of them than there may be users. A request becomes a message when its turn comes, so
that one which is none fails alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.proto import serialize_length_prefixed

from service.errors import FieldError, InvalidRequest, MalformedBody
from service.http.strict import StrictDecoder
from service.many import Done
from service.many_json import refuse_defaults, refuse_many
from service.problems import problem_of
from service.rpc import codec
from service.rpc.stubs import recommendations_pb2 as pb
from service.turns import Request
from service.wire import RankRequest, RecommendRequest

BATCHES: Mapping[type, Any] = {RecommendRequest: pb.BatchRequest, RankRequest: pb.RankBatchRequest}
REQUESTS, DEFAULTS = 1, 2
LENGTH_DELIMITED = 2
MOST_VARINT = 5
"""Bytes of a tag or a length, as protobuf's own readers have it."""


class ProtobufRows:
    """Requests as their bytes came; `most` is of one of them."""

    def __init__(
        self, rows: Sequence[memoryview], decoder: StrictDecoder, defaults: dict[str, Any], kind: Any, most: int
    ) -> None:
        self.rows, self.decoder, self.defaults, self.kind, self.most = rows, decoder, defaults, kind, most

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Request:
        row = self.rows[place]
        if len(row) > self.most:
            raise MalformedBody("the message is longer than one request may be (service.max_body_bytes)")
        said = codec.plain(codec.parsed(self.kind, bytes(row)))
        found: Request = self.decoder.convert({**self.defaults, **said})
        return found


def read(body: bytearray, decoder: StrictDecoder, most: int, most_row: int) -> ProtobufRows:
    """The rows of a BatchRequest or a RankBatchRequest, at most `most`, of `most_row` bytes each. Raises MalformedBody
    or InvalidRequest. Takes a while: meant for a thread."""
    batch = BATCHES[decoder.kind].DESCRIPTOR
    kind = getattr(pb, batch.fields_by_number[REQUESTS].message_type.name)
    rows: list[memoryview] = []
    defaults: dict[str, Any] | None = None
    for number, data in fields(memoryview(body), batch):
        if number == REQUESTS:
            rows.append(data)
            refuse_many(len(rows), most)
        elif defaults is not None:
            raise MalformedBody("defaults stands twice")
        else:
            defaults = defaults_of(data, kind, most_row)
            refuse_defaults(defaults, decoder.kind)
    return ProtobufRows(rows, decoder, defaults or {}, kind, most_row)


def defaults_of(data: memoryview, kind: Any, most: int) -> dict[str, Any]:
    if len(data) > most:
        raise MalformedBody("defaults are longer than one request may be (service.max_body_bytes)")
    try:
        return codec.plain(codec.parsed(kind, bytes(data)))
    except InvalidRequest as error:
        named = (FieldError(f"defaults.{one.path}".removesuffix("."), one.message) for one in error.errors)
        raise InvalidRequest(*named) from error


def fields(data: memoryview, kind: Any) -> Iterator[tuple[int, memoryview]]:
    """The number and the bytes of each field of a message that has none but messages in it. Raises MalformedBody, or
    InvalidRequest for a field that it does not know."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at, kind)
        number, sent = tag >> 3, codec.WIRE_TYPES.get(tag & 7)
        if sent is None or not 0 < number < 1 << 29:
            raise MalformedBody(f"no {kind.full_name}: at byte {at} no field begins")
        known = kind.fields_by_number.get(number)
        if known is None:
            raise InvalidRequest(FieldError(str(number), f"Unknown field number, sent as {sent}"))
        if tag & 7 != LENGTH_DELIMITED:
            raise InvalidRequest(FieldError(known.name, f"Sent as {sent}, which is another type's"))
        length, at = varint(data, at, kind)
        if length > len(data) - at:
            left = len(data) - at
            raise MalformedBody(f"no {kind.full_name}: {known.name} of {length:,} bytes, but {left:,} are left")
        yield number, data[at : at + length]
        at += length


def varint(data: memoryview, at: int, kind: Any) -> tuple[int, int]:
    """A number, and where it ends. Raises MalformedBody."""
    value = 0
    for shift, byte in enumerate(data[at : at + MOST_VARINT]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise MalformedBody(f"no {kind.full_name}: at byte {at} a number does not end")


class Delimited:
    """What is done as BatchReply, one after the other."""

    def begin(self) -> bytes:
        return b""

    def some(self, done: Sequence[Done]) -> bytes:
        sink = io.BytesIO()
        for one in done:
            serialize_length_prefixed(reply_of(one), sink)
        return sink.getvalue()

    def end(self) -> bytes:
        return b""


def reply_of(one: Done) -> Any:
    """A pb.BatchReply."""
    if isinstance(one.outcome, Exception):
        return pb.BatchReply(index=one.index, problem=codec.problem_of(problem_of(one.outcome)))
    return pb.BatchReply(index=one.index, recommendation=codec.recommendation(one.outcome))
