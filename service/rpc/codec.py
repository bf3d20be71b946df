"""Messages of proto/endcap/v1 to and from the types of `service.wire`.

A message becomes the plain values that JSON would have given, and is then checked as they are: the same bounds, in the
same words. What a message has that the proto file does not know is refused (docs/transports.md says why).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import orjson
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from service.errors import FieldError, InvalidRequest, Look, MalformedBody
from service.http.strict import MOST_ERRORS, StrictDecoder
from service.mistakes import beneath
from service.rpc.stubs import recommendations_pb2 as pb
from service.wire import Accepted, Problem, RankRequest, Recommendation, RecommendRequest

WIRE_TYPES = {0: "varint", 1: "fixed64", 2: "length-delimited", 3: "group", 5: "fixed32"}
MOST_NAMED = 65_536
"""Bytes of a message whose unknown fields are named: each becomes an object, and two bytes are enough to make one."""
RECOMMEND, RANK = StrictDecoder(RecommendRequest), StrictDecoder(RankRequest)


def decoded(kind: Any, data: bytes) -> Any:
    """A message of this kind. Raises MalformedBody for bytes that are none."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MalformedBody(f"no {kind.DESCRIPTOR.full_name}: {' '.join(str(error).split())[:200]}") from error


def parsed(kind: Any, data: bytes) -> Any:
    """A message of this kind without unknown fields. Raises MalformedBody or InvalidRequest."""
    message = decoded(kind, data)
    whole = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != whole:
        named = islice(unknown(kind.FromString(data), ""), MOST_ERRORS) if len(data) <= MOST_NAMED else ()
        raise InvalidRequest(*(list(named) or [FieldError("", "has fields that the proto file does not know")]))
    return message


def unknown(message: Any, path: str) -> Iterator[FieldError]:
    """The fields that are not in the proto file; a known number with the wrong wire type is one too."""
    known = {one.number: one.name for one in message.DESCRIPTOR.fields}
    for field in UnknownFieldSet(message):
        sent = WIRE_TYPES[field.wire_type]
        if (name := known.get(field.field_number)) is not None:
            yield FieldError(beneath(path, name), f"Sent as {sent}, which is another type's")
        else:
            yield FieldError(beneath(path, str(field.field_number)), f"Unknown field number, sent as {sent}")
    for field, value in message.ListFields():
        at = beneath(path, field.name)
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            for key, one in value.items():
                yield from unknown(one, beneath(at, key))
        elif field.is_repeated:
            for place, one in enumerate(value):
                yield from unknown(one, f"{at}[{place}]")
        else:
            yield from unknown(value, at)


def plain(message: Any, path: str = "") -> dict[str, Any]:
    """The fields that are set, as JSON would have them. Raises InvalidRequest for a number that JSON has not."""
    found = {}
    for field, value in message.ListFields():
        name = field.name
        if field.message_type is None:
            found[name] = list(value) if field.is_repeated else finite(value, beneath(path, name))
        elif field.message_type.GetOptions().map_entry:
            found[name] = {key: scalar(one, beneath(beneath(path, name), key)) for key, one in value.items()}
        else:
            found[name] = plain(value, beneath(path, name))
    return found


def scalar(message: Any, path: str) -> Any:
    """What is set of a Scalar; None where nothing is."""
    which = message.WhichOneof("value")
    return None if which is None else finite(getattr(message, which), path)


def finite(value: Any, path: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(FieldError(path, f"Expected a finite number, got {value}"))
    return value


def event_row(message: Any) -> dict[str, Any] | InvalidRequest:
    """An event as plain values, or what is wrong with it: that is one row's own."""
    try:
        return plain(message)
    except InvalidRequest as error:
        return error


def recommend_request(message: Any) -> RecommendRequest:
    """Raises InvalidRequest, which names every bad field."""
    found: RecommendRequest = RECOMMEND.convert(plain(message))
    return found


def rank_request(message: Any) -> RankRequest:
    """Raises InvalidRequest, which names every bad field."""
    found: RankRequest = RANK.convert(plain(message))
    return found


def recommendation(answer: Recommendation) -> Any:
    """A pb.Recommendation. Scores are float32 on both sides, and so the very same."""
    message = pb.Recommendation(
        recommendation_id=answer.recommendation_id,
        model=pb.Model(name=answer.model.name, version=answer.model.version, group=answer.model.group),
        degraded=answer.degraded,
        took_ms=answer.took_ms,
    )
    add = message.items.add
    for one in answer.items:
        item = add()  # field by field: by keyword it takes twice the time
        item.item_id, item.score, item.source = one.item_id, one.score, one.source
        if (told := one.explain) is not msgspec.UNSET:
            explain = item.explain
            explain.title, explain.category, explain.retrieval_score = told.title, told.category, told.retrieval_score
            if told.price is not None:
                explain.price = told.price
    for name, view in answer.features.items():
        found = message.features[name]
        found.status = view.status
        if view.age_s is not None:
            found.age_s = view.age_s
    if answer.missing_item_ids is not msgspec.UNSET:
        message.missing_item_ids.extend(answer.missing_item_ids)
    if answer.inputs is not msgspec.UNSET:
        message.inputs_json = orjson.dumps(answer.inputs, default=msgspec.to_builtins).decode()
    return message


def problem(found: Look, detail: str, errors: Sequence[FieldError]) -> Any:
    """A pb.Problem, as problem details are over HTTP."""
    return pb.Problem(
        type=f"urn:endcap:problem:{found.slug}", title=found.title, status=found.status, detail=detail,
        errors=[pb.BadField(path=one.path, message=one.message) for one in errors],
    )  # fmt: skip


def problem_of(found: Problem) -> Any:
    """A pb.Problem, of problem details that are there already."""
    errors = [pb.BadField(path=one.path, message=one.message) for one in found.errors]
    return pb.Problem(type=found.type, title=found.title, status=found.status, detail=found.detail, errors=errors)


def events_accepted(taken: Accepted) -> Any:
    """A pb.EventsAccepted."""
    return pb.EventsAccepted(
        accepted=taken.accepted,
        duplicates=taken.duplicates,
        rejected=[pb.Rejected(index=one.index, message=one.message) for one in taken.rejected],
        rejected_count=taken.rejected_count,
        token=taken.token,
    )
