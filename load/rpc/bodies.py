"""Bodies of the JSON API as messages of proto/endcap/v1, each of which asks for the same as its body.

A body may be wrong on purpose. What a message can say goes out as it is, for the service to refuse: a `count` of 0.
What it cannot say is refused here, with the name of the field: a `count` of "five", or a field that there is not. What
is a mistake in JSON, and would be left out of a message (a `placement` of null), is such a thing too.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from load.rpc.stubs import recommendations_pb2 as pb

Whole = Annotated[int, Meta(ge=0, lt=2**32)]
Scalar = str | bool | int | float | None
INT64 = range(-(2**63), 2**63)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Session(Struct, forbid_unknown_fields=True):
    item_ids: list[str] | UnsetType = UNSET


class Price(Struct, forbid_unknown_fields=True):
    min: float | None = None
    max: float | None = None


class Filter(Struct, forbid_unknown_fields=True):
    category: list[str] | None = None
    price: Price | None = None
    in_stock: Literal[True] = True
    """Means nothing where it is true, and may not be anything else: so no message has it."""


class Recommend(Struct, forbid_unknown_fields=True):
    user_id: str | None = None
    session: Session | None = None
    item_id: str | None = None
    placement: str | UnsetType = UNSET
    count: Whole | UnsetType = UNSET
    context: dict[str, Scalar] | None = None
    filter: Filter | None = None
    exclude_item_ids: list[str] = []
    model_version: str | None = None
    explain: bool = False


class Rank(Struct, forbid_unknown_fields=True):
    item_ids: list[str] = []
    user_id: str | None = None
    session: Session | None = None
    placement: str | UnsetType = UNSET
    context: dict[str, Scalar] | None = None
    model_version: str | None = None
    explain: bool = False


class Event(Struct, forbid_unknown_fields=True):
    event_id: str = ""
    user_id: str = ""
    item_id: str = ""
    type: str = ""
    timestamp: str | float | None = None
    session_id: str | None = None
    value: float | None = None


class Events(Struct, forbid_unknown_fields=True):
    events: list[Event]


def recommend_request(body: str) -> tuple[bytes, ...]:
    """The message for a body of `/v1/recommendations`. Raises ValueError, which names the field."""
    asked = read(body, Recommend)
    message = pb.RecommendRequest(
        user_id=asked.user_id,
        session=session(asked.session),
        item_id=asked.item_id,
        placement=given(asked.placement),
        count=given(asked.count),
        context=context(asked.context),
        filter=filter_of(asked.filter),
        exclude_item_ids=asked.exclude_item_ids,
        model_version=asked.model_version,
        explain=asked.explain,
    )
    return (message.SerializeToString(),)


def rank_request(body: str) -> tuple[bytes, ...]:
    """The message for a body of `/v1/rank`. Raises ValueError, which names the field."""
    asked = read(body, Rank)
    message = pb.RankRequest(
        item_ids=asked.item_ids,
        user_id=asked.user_id,
        session=session(asked.session),
        placement=given(asked.placement),
        context=context(asked.context),
        model_version=asked.model_version,
        explain=asked.explain,
    )
    return (message.SerializeToString(),)


def events(body: str) -> tuple[bytes, ...]:
    """A message for each event of a body `{"events": [...]}`. Raises ValueError, which names event and field."""
    return tuple(event(one, f"$.events[{place}]") for place, one in enumerate(read(body, Events).events))


def event_lines(body: str) -> tuple[bytes, ...]:
    """A message for each line of NDJSON that is not empty. Raises ValueError, which names the line and the field."""
    made = []
    for number, line in enumerate(body.split("\n"), start=1):
        if line and not line.isspace():
            try:
                made.append(event(read(line, Event), "$"))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return tuple(made)


def event(one: Event, place: str) -> bytes:
    message = pb.Event(
        event_id=one.event_id, user_id=one.user_id, item_id=one.item_id, type=one.type,
        timestamp=seconds(one.timestamp, place), session_id=one.session_id, value=one.value,
    )  # fmt: skip
    encoded: bytes = message.SerializeToString()
    return encoded


def read(body: str, kind: Any) -> Any:
    """A body as its type. Raises ValueError for what is no such thing, or could be read in two ways."""
    try:
        raw = json.loads(body, object_pairs_hook=once, parse_constant=refused)
        return msgspec.convert(raw, kind)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except (msgspec.ValidationError, json.JSONDecodeError) as error:
        raise ValueError(str(error)) from error


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:100]!r} stands twice in one object")
    return found


def refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def given(value: Any) -> Any:
    """None, which leaves a field out, where nothing was said."""
    return None if value is UNSET else value


def session(one: Session | None) -> Any:
    """An empty list is none; a session without a list is a mistake, in a message as in JSON."""
    if one is None or one.item_ids == []:
        return None
    return pb.Session(item_ids=given(one.item_ids))


def filter_of(one: Filter | None) -> Any:
    if one is None:
        return None
    if one.category == []:
        raise ValueError("an empty list, which in a message is none - at `$.filter.category`")
    price = None if one.price is None else pb.Price(min=one.price.min, max=one.price.max)
    return pb.Filter(category=one.category, price=price)


def context(values: dict[str, Scalar] | None) -> Any:
    return None if values is None else {name: scalar(value, name) for name, value in values.items()}


def scalar(value: Scalar, name: str) -> Any:
    if value is None:
        return pb.Scalar()
    if isinstance(value, str):
        return pb.Scalar(text=value)
    if isinstance(value, bool):
        return pb.Scalar(flag=value)
    if isinstance(value, float):
        return pb.Scalar(number=value)
    if value not in INT64:
        raise ValueError(f"a whole number beyond 64 bits - at `$.context[{name[:100]!r}]`")
    return pb.Scalar(whole=value)


def seconds(timestamp: str | float | None, place: str) -> float | None:
    """A time as the message has it: seconds since the epoch."""
    if not isinstance(timestamp, str):
        return timestamp
    try:
        at = datetime.fromisoformat(timestamp)
    except ValueError as error:
        raise ValueError(f"{timestamp[:40]!r} is no RFC 3339 time - at `{place}.timestamp`") from error
    if at.tzinfo is None:
        raise ValueError(f"{timestamp[:40]!r} has no offset - at `{place}.timestamp`")
    return (at - EPOCH).total_seconds()
