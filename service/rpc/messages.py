"""The messages of proto/endcap/v1 to and from the types that every door shares. Pure functions.

A request becomes plain values, and those the type that JSON becomes too: so there is one set of bounds and defaults.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
import orjson
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from msgspec import UNSET

from service import wire
from service.errors import FieldError, InvalidRequest, MalformedBody
from service.http.strict import MOST_ERRORS, StrictDecoder
from service.rpc.stubs import recommendations_pb2 as pb

M = TypeVar("M", bound=Message)
RECOMMEND, RANK = StrictDecoder(wire.RecommendRequest), StrictDecoder(wire.RankRequest)


def parsed(kind: Callable[[], M], data: bytes) -> M:
    """The bytes of a message. Raises MalformedBody, or InvalidRequest for fields that it does not have."""
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise MalformedBody(f"no {message.DESCRIPTOR.full_name}: {error}"[:200]) from error
    refuse_unknown(message)
    return message


def refuse_unknown(message: Message) -> None:
    """Raises InvalidRequest for fields that nobody here knows: as in JSON, nothing is left out in silence."""
    whole = type(message)()
    whole.CopyFrom(message)
    whole.DiscardUnknownFields()
    if whole.ByteSize() != message.ByteSize():
        found = list(itertools.islice(unknown(message, ""), MOST_ERRORS))
        raise InvalidRequest(*(found or [FieldError("", "Unknown fields")]))


def unknown(message: Message, path: str) -> Iterator[FieldError]:
    """The fields of a message, and of those in it, that its type does not have."""
    known = ", ".join(f"{field.name} = {field.number}" for field in message.DESCRIPTOR.fields)
    for one in UnknownFieldSet(message):
        yield FieldError(path, f"Unknown field {one.field_number}, or one of another wire type; known: {known}")
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        here = f"{path}.{field.name}" if path else field.name
        if field.message_type.GetOptions().map_entry:
            parts = [(f"{here}.{key}", value[key]) for key in value if isinstance(value[key], Message)]
        elif isinstance(value, Message):
            parts = [(here, value)]
        else:
            parts = [(f"{here}[{place}]", one) for place, one in enumerate(value)]
        for name, part in parts:
            yield from unknown(part, name)


def recommend_request(message: pb.RecommendRequest) -> wire.RecommendRequest:
    """Raises InvalidRequest."""
    raw = asked(message)
    if message.HasField("item_id"):
        raw["item_id"] = message.item_id
    if message.HasField("count"):
        raw["count"] = message.count
    if message.exclude_item_ids:
        raw["exclude_item_ids"] = list(message.exclude_item_ids)
    if message.HasField("filter"):
        raw["filter"] = narrowed(message.filter)
    found: wire.RecommendRequest = RECOMMEND.convert(raw)
    return found


def rank_request(message: pb.RankRequest) -> wire.RankRequest:
    """Raises InvalidRequest."""
    found: wire.RankRequest = RANK.convert({**asked(message), "item_ids": list(message.item_ids)})
    return found


def asked(message: pb.RecommendRequest | pb.RankRequest) -> dict[str, Any]:
    """What both requests have, as plain values: only what was said."""
    raw: dict[str, Any] = {
        name: getattr(message, name) for name in ("user_id", "placement", "model_version") if message.HasField(name)
    }
    if message.HasField("session"):
        raw["session"] = {"item_ids": list(message.session.item_ids)}
    if message.context:
        raw["context"] = {name: scalar(message.context[name]) for name in message.context}
    if message.explain:
        raw["explain"] = True
    return raw


def scalar(message: pb.Scalar) -> str | bool | int | float | None:
    which = message.WhichOneof("value")
    return None if which is None else getattr(message, which)


def narrowed(message: pb.Filter) -> dict[str, Any]:
    raw: dict[str, Any] = {"category": list(message.category)} if message.category else {}
    if message.HasField("price"):
        ends = ("min", "max")
        raw["price"] = {end: getattr(message.price, end) for end in ends if message.price.HasField(end)}
    return raw


def event_row(message: pb.Event) -> dict[str, Any]:
    """An event as the plain values of an `EventRow`; what is wrong with them is said where they are taken in."""
    raw: dict[str, Any] = {name: getattr(message, name) for name in ("event_id", "user_id", "item_id", "type")}
    for name in ("timestamp", "session_id", "value"):
        if message.HasField(name):
            raw[name] = getattr(message, name)
    return raw


def recommendation(answer: wire.Recommendation) -> pb.Recommendation:
    message = pb.Recommendation(
        recommendation_id=answer.recommendation_id, degraded=answer.degraded, took_ms=answer.took_ms,
        model=pb.Model(name=answer.model.name, version=answer.model.version, group=answer.model.group),
    )  # fmt: skip
    add = message.items.add
    for item in answer.items:
        one = add(item_id=item.item_id, score=item.score, source=item.source)
        if (why := item.explain) is not UNSET:
            one.explain.title, one.explain.category = why.title, why.category
            one.explain.retrieval_score = why.retrieval_score
            if why.price is not None:
                one.explain.price = why.price
    for name, view in answer.features.items():
        entry = message.features[name]
        entry.status = view.status
        if view.age_s is not None:
            entry.age_s = view.age_s
    if answer.missing_item_ids is not UNSET:
        message.missing_item_ids.extend(answer.missing_item_ids)
    if answer.inputs is not UNSET:
        message.inputs_json = orjson.dumps(answer.inputs, default=msgspec.to_builtins).decode()
    return message


def problem(found: wire.Problem) -> pb.Problem:
    errors = [pb.BadField(path=one.path, message=one.message) for one in found.errors]
    return pb.Problem(type=found.type, title=found.title, status=found.status, detail=found.detail, errors=errors)


def events_accepted(taken: wire.Accepted) -> pb.EventsAccepted:
    rejected = [pb.Rejected(index=one.index, message=one.message) for one in taken.rejected]
    return pb.EventsAccepted(
        accepted=taken.accepted, duplicates=taken.duplicates, rejected=rejected, rejected_count=taken.rejected_count,
        token=taken.token,
    )  # fmt: skip
