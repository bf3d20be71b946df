"""Rows of a log as gRPC calls. The service's own reader says whether a call asks for what the row did."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from infra.make_proto import STUBS
from load.rpc import bodies
from load.rpc.calls import METADATA, RANK, RECOMMEND, RECORD_EVENTS, RpcCall, call_of
from load.rpc.stubs import recommendations_pb2 as loads
from load.traffic_log import Entry
from service import wire
from service.call import HEADERS
from service.errors import ServiceError
from service.http.strict import StrictDecoder
from service.rpc import codec
from service.rpc.stubs import recommendations_pb2 as services

RECOMMENDATIONS, RANKS, EVENTS = "/v1/recommendations", "/v1/rank", "/v1/events"
NDJSON = {"Content-Type": "application/x-ndjson; charset=utf-8"}


def call(path: str, body: Any, headers: dict[str, str] | None = None) -> RpcCall:
    return call_of(
        Entry(0, "POST", path, headers or {}, body if isinstance(body, str) else orjson.dumps(body).decode())
    )


def test_both_copies_of_the_stubs_are_of_one_proto_file_and_live_in_one_process() -> None:
    assert loads.DESCRIPTOR.serialized_pb == services.DESCRIPTOR.serialized_pb
    assert loads.DESCRIPTOR.name == services.DESCRIPTOR.name
    event = loads.Event(event_id="e1", timestamp=1.5)
    assert services.Event.FromString(event.SerializeToString()) == event
    assert set(STUBS) == {Path("service/rpc/stubs"), Path("load/rpc/stubs")}


@pytest.mark.parametrize(
    ("kind", "asked", "message"),
    [
        (bodies.Recommend, wire.RecommendRequest, loads.RecommendRequest),
        (bodies.Rank, wire.RankRequest, loads.RankRequest),
        (bodies.Session, wire.Session, loads.Session),
        (bodies.Filter, wire.Filter, loads.Filter),
        (bodies.Price, wire.Price, loads.Price),
        (bodies.Event, wire.EventRow, loads.Event),
    ],
)
def test_every_field_of_the_json_api_and_of_the_message_is_known(kind: Any, asked: Any, message: Any) -> None:
    """Or a row with it would be a bad one. `in_stock` has no place in a message, because it says nothing."""
    names = set(kind.__struct_fields__)
    assert names == set(asked.__struct_fields__)
    assert names - {"in_stock"} == {field.name for field in message.DESCRIPTOR.fields}


SAID: list[tuple[str, Any]] = [
    (RECOMMENDATIONS, {}),
    (RECOMMENDATIONS, {"user_id": "u1", "count": 5, "placement": "similar", "item_id": "i1", "explain": True}),
    (RECOMMENDATIONS, {"session": {"item_ids": ["i1", "i2"]}, "exclude_item_ids": ["i3"], "model_version": "2"}),
    (RECOMMENDATIONS, {"filter": {"category": ["Mugs", "é"], "price": {"min": 0, "max": 20.5}, "in_stock": True}}),
    (RECOMMENDATIONS, {"filter": {"price": {}}, "context": {}}),
    (RECOMMENDATIONS, {"filter": {}, "context": {"a": "x", "b": True, "c": -7, "d": 0.5, "e": None, "f": False}}),
    (RECOMMENDATIONS, {"user_id": None, "session": None, "context": None, "filter": None, "model_version": None}),
    (RECOMMENDATIONS, {"filter": {"category": None, "price": None}, "explain": False, "exclude_item_ids": []}),
    (RANKS, {"item_ids": ["i1", "i2"], "user_id": "u1", "placement": "home", "explain": True}),
    (RANKS, {"item_ids": ["i1"], "session": {"item_ids": ["i2"]}, "context": {"c": 2**63 - 1}, "model_version": "1"}),
]


@pytest.mark.parametrize(("path", "body"), SAID, ids=str)
def test_a_call_asks_for_what_the_row_did(path: str, body: dict[str, Any]) -> None:
    made = call(path, body)
    if path == RECOMMENDATIONS:
        kind, message, read = wire.RecommendRequest, services.RecommendRequest, codec.recommend_request
        assert made.method == RECOMMEND
    else:
        kind, message, read = wire.RankRequest, services.RankRequest, codec.rank_request
        assert made.method == RANK
    over_http = StrictDecoder(kind).decode(orjson.dumps(body))
    over_rpc = read(codec.parsed(message, made.messages[0]))
    plain = [msgspec.to_builtins(one) for one in (over_http, over_rpc)]
    for one in plain:
        one["context"] = one["context"] or {}  # none and an empty one are the same in a message
    assert plain[0] == plain[1]
    assert made.metadata == ()


def test_an_empty_session_is_none() -> None:
    assert call(RECOMMENDATIONS, {"session": {"item_ids": []}}).messages == call(RECOMMENDATIONS, {}).messages


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RECOMMENDATIONS, {"count": 0}),
        (RECOMMENDATIONS, {"user_id": ""}),
        (RECOMMENDATIONS, {"session": {}}),
        (RECOMMENDATIONS, {"session": {"item_ids": ["x" * 300]}}),
        (RECOMMENDATIONS, {"filter": {"price": {"min": -1}}}),
        (RANKS, {}),
        (RANKS, {"item_ids": []}),
    ],
    ids=str,
)
def test_a_mistake_that_a_message_can_make_goes_out_and_is_refused_by_the_service(path: str, body: Any) -> None:
    (message,) = call(path, body).messages
    with pytest.raises(ServiceError):
        if path == RANKS:
            codec.rank_request(codec.parsed(services.RankRequest, message))
        else:
            codec.recommend_request(codec.parsed(services.RecommendRequest, message))


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (RECOMMENDATIONS, {"usr_id": "u1"}, "unknown field `usr_id`"),
        (RECOMMENDATIONS, {"filter": {"colour": "red"}}, "unknown field `colour` - at `$.filter`"),
        (RECOMMENDATIONS, {"count": "5"}, "Expected `int`, got `str` - at `$.count`"),
        (RECOMMENDATIONS, {"count": 5.0}, "Expected `int`, got `float` - at `$.count`"),
        (RECOMMENDATIONS, {"count": -1}, "`int` >= 0 - at `$.count`"),
        (RECOMMENDATIONS, {"count": 2**32}, "at `$.count`"),
        (RECOMMENDATIONS, {"user_id": 7}, "Expected `str | null`, got `int` - at `$.user_id`"),
        (RECOMMENDATIONS, {"placement": None}, "Expected `str`, got `null` - at `$.placement`"),
        (RECOMMENDATIONS, {"exclude_item_ids": [1]}, "at `$.exclude_item_ids[0]`"),
        (RECOMMENDATIONS, {"context": {"a": [1]}}, "at `$.context[...]`"),
        (RECOMMENDATIONS, {"context": {"a": 2**63}}, "beyond 64 bits - at `$.context['a']`"),
        (RECOMMENDATIONS, {"filter": {"category": []}}, "an empty list, which in a message is none"),
        (RECOMMENDATIONS, {"filter": {"in_stock": False}}, "at `$.filter.in_stock`"),
        (RECOMMENDATIONS, '{"count": 5, "count": 6}', "the key 'count' stands twice"),
        (RECOMMENDATIONS, '{"filter": {"price": {"min": NaN}}}', "NaN is no JSON number"),
        (RECOMMENDATIONS, "{", "Expecting"),
        (RECOMMENDATIONS, "[]", "Expected `object`, got `array`"),
        (RECOMMENDATIONS, '{"user_id": "\\ud800"}', "surrogates not allowed"),
        (RECOMMENDATIONS, '{"a":' * 100_000, "nested too deep"),
        (RANKS, {"item_ids": "i1"}, "Expected `array`, got `str` - at `$.item_ids`"),
        (RANKS, {"item_ids": ["i1"], "count": 5}, "unknown field `count`"),
        (EVENTS, {"events": [{"event_id": "e"}, {"event_id": 7}]}, "at `$.events[1].event_id`"),
        (EVENTS, {"events": [{"timestamp": "yesterday"}]}, "no RFC 3339 time - at `$.events[0].timestamp`"),
        (EVENTS, {"events": [{"timestamp": "2026-01-01T00:00:00"}]}, "has no offset - at `$.events[0].timestamp`"),
        (EVENTS, {}, "missing required field `events`"),
    ],
)  # fmt: skip
def test_what_a_message_cannot_say_is_refused_with_the_name_of_the_field(path: str, body: Any, said: str) -> None:
    with pytest.raises(ValueError, match="the body cannot be said in a message: ") as refused:
        call(path, body)
    assert said in str(refused.value)


def test_events_go_one_by_one_and_say_what_the_rows_did() -> None:
    rows = [
        {"event_id": "e1", "user_id": "u1", "item_id": "i1", "type": "view"},
        {"event_id": "e2", "user_id": "u1", "item_id": "i1", "type": "purchase", "timestamp": 1764075600.123456,
         "session_id": "s", "value": 3},
        {"event_id": "e3", "user_id": "u1", "item_id": "i1", "type": "cart",
         "timestamp": "2026-11-25T13:00:00.5+01:00"},
        {"event_id": "", "user_id": "u1"},
    ]  # fmt: skip
    made = call(EVENTS, {"events": rows})
    assert made.method == RECORD_EVENTS
    read = [codec.event_row(codec.parsed(services.Event, message)) for message in made.messages]
    assert read[:2] == rows[:2]
    assert read[2] == rows[2] | {"timestamp": 1795608000.5}
    assert read[3] == {"user_id": "u1"}
    lines = "\n".join(orjson.dumps(row).decode() for row in rows)
    assert call(EVENTS, f"\n{lines}\r\n\n", NDJSON).messages == made.messages
    assert call(EVENTS, {"events": []}).messages == ()
    with pytest.raises(ValueError, match=r"line 2: .* - at `\$.value`"):
        call(EVENTS, '{"event_id": "e"}\n{"value": "x"}', NDJSON)


def test_the_headers_that_the_service_reads_become_metadata_and_no_others() -> None:
    said = {"Endcap-Timeout-Ms": "20", "ENDCAP-PRIORITY": "bulk", "endcap-after": "7-0",
            "X-Envoy-Expected-Rq-Timeout-Ms": "30", "User-Agent": "shop/1", "Accept": "*/*", "te": "x"}  # fmt: skip
    assert call(RECOMMENDATIONS, {}, said).metadata == (
        ("endcap-timeout-ms", "20"), ("endcap-priority", "bulk"), ("endcap-after", "7-0"),
        ("x-envoy-expected-rq-timeout-ms", "30"),
    )  # fmt: skip
    assert METADATA | {"grpc-timeout"} == set(HEADERS)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (Entry(0, "GET", "/v1/items?a=b"), "GET /v1/items cannot be played over gRPC"),
        (Entry(0, "POST", "/v1/recommendations:batch", {}, "{}"), "POST /v1/recommendations:batch cannot be played"),
        (Entry(0, "GET", RECOMMENDATIONS), "GET /v1/recommendations cannot be played over gRPC"),
        (Entry(0, "POST", RECOMMENDATIONS), "no body"),
        (Entry(0, "POST", RECOMMENDATIONS, {"content-type": "text/csv"}, ""), "a body of text/csv cannot"),
        (Entry(0, "POST", RANKS, NDJSON, "{}"), "a body of application/x-ndjson cannot"),
        (Entry(0, "POST", RANKS, {"grpc-timeout": "35m"}, "{}"), "header grpc-timeout is gRPC's own"),
        (Entry(0, "POST", RANKS, {"Endcap-After": "\xe9"}, "{}"), "header Endcap-After: 'é' is not printable ASCII"),
    ],
)  # fmt: skip
def test_what_no_call_can_ask_for_is_refused(entry: Entry, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        call_of(entry)


def test_a_replay_over_http_does_not_pay_for_grpc() -> None:
    code = "import load.cli, load.replay_worker, sys; from load.doors import door_of; door_of('http://x'); "
    code += "sys.exit(any(name.split('.')[0] in ('grpc', 'google') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
