"""Protobuf over HTTP, by a client that knows the proto file only: the same answers, bounds and mistakes as JSON."""

from __future__ import annotations

import io
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from service.accept import JSON, PROTOBUF, chosen
from service.errors import InvalidRequest, MalformedBody, NotAcceptable
from service.http.lane import takes_json
from service.rpc import codec
from service.rpc.stubs import recommendations_pb2 as pb
from service.wire import RankRequest, RecommendRequest
from tests.service.conftest import Client, counted

HEADERS = {"Content-Type": PROTOBUF}


async def send(client: Client, path: str, body: bytes, **headers: str) -> tuple[int, str, bytes]:
    """Status, type and bytes of the answer."""
    async with client.session.post(
        client.url + path, data=io.BytesIO(body), headers={**HEADERS, **headers}
    ) as response:
        return response.status, response.content_type, await response.read()


def request(**fields: Any) -> bytes:
    return bytes(pb.RecommendRequest(**fields).SerializeToString())


def wide(numbers: int) -> bytes:
    """Fields that no message of ours has."""
    return b"\xf8\x07\x01" * numbers  # field 127, varint 1


async def test_a_recommendation_is_that_of_json_field_for_field(client: Client) -> None:
    asked: dict[str, Any] = {"user_id": "u1", "count": 7, "explain": True, "exclude_item_ids": ["i00001"]}
    plain = await client.recommend(**asked, filter={"price": {"max": 90}}, context={"country": "DE"})
    body = request(**asked, filter={"price": {"max": 90}}, context={"country": pb.Scalar(text="DE")})
    status, kind, data = await send(client, "/v1/recommendations", body, Accept=PROTOBUF)
    assert (status, kind) == (200, PROTOBUF)
    answer = pb.Recommendation.FromString(data)
    assert [one.item_id for one in answer.items] == [one["item_id"] for one in plain["items"]]
    for one, other in zip(answer.items, plain["items"], strict=True):
        assert one.source == other["source"] and one.score == pytest.approx(other["score"], rel=1e-6)
        assert one.explain.title == other["explain"]["title"] and one.explain.price == other["explain"]["price"]
    assert msgspec.json.decode(answer.inputs_json).keys() == plain["inputs"].keys()
    assert {name: view.status for name, view in answer.features.items()} == {
        name: view["status"] for name, view in plain["features"].items()
    }
    model = {"name": answer.model.name, "version": answer.model.version, "group": answer.model.group}
    assert model == plain["model"] and len(answer.recommendation_id) == 32 and not answer.degraded


async def test_each_side_chooses_its_own_format(client: Client) -> None:
    """The body's type says what came, `Accept` what goes back; without one it is what came."""
    status, kind, data = await send(client, "/v1/recommendations", request(user_id="u1", count=3), Accept=JSON)
    assert (status, kind) == (200, JSON) and len(msgspec.json.decode(data)["items"]) == 3
    for accept in ({"Accept": "*/*"}, {}):
        status, kind, data = await send(client, "/v1/recommendations", b"", **accept)
        assert (status, kind) == (200, PROTOBUF) and len(pb.Recommendation.FromString(data).items) == 20
    body = {"user_id": "u1", "item_ids": ["i00003", "nothing"]}
    async with client.session.post(client.url + "/v1/rank", json=body, headers={"Accept": PROTOBUF}) as response:
        found = pb.Recommendation.FromString(await response.read())
    assert [one.item_id for one in found.items] == ["i00003"] and found.missing_item_ids == ["nothing"]
    ranked = pb.RankRequest(**body).SerializeToString()
    assert len(pb.Recommendation.FromString((await send(client, "/v1/rank", ranked))[2]).items) == 1
    _, text = await client.get("/metrics")
    for one, other, count in ((PROTOBUF, JSON, 1), (PROTOBUF, PROTOBUF, 2)):
        assert counted(text, "endcap_formats_total", endpoint="/v1/recommendations", body=one, answer=other) == count
    assert counted(text, "endcap_formats_total", endpoint="/v1/rank", body=JSON, answer=PROTOBUF) == 1


async def test_events_are_taken_in_row_by_row(client: Client) -> None:
    event = {"event_id": f"p{time.time_ns()}", "user_id": "u1", "item_id": "i00001", "type": "view"}
    rows = [event, event, {**event, "event_id": "x", "type": "nod"}, {**event, "event_id": ""},
            {**event, "event_id": "y", "timestamp": float("nan")}]  # fmt: skip
    body = pb.EventsRequest(events=rows).SerializeToString()
    status, kind, data = await send(client, "/v1/events", body)
    taken = pb.EventsAccepted.FromString(data)
    assert (status, kind) == (202, PROTOBUF) and (taken.accepted, taken.duplicates, taken.rejected_count) == (1, 1, 3)
    assert [one.index for one in taken.rejected] == [2, 3, 4] and "no kind 'nod'" in taken.rejected[0].message
    status, _, data = await send(client, "/v1/recommendations", request(user_id="u1"), **{"Endcap-After": taken.token})
    assert status == 200 and "context" not in pb.Recommendation.FromString(data).degraded
    unknown = b"".join(
        b"\x0a" + bytes([len(one)]) + one for one in (pb.Event(event_id="z").SerializeToString(), wide(1))
    )
    status, _, data = await send(client, "/v1/events", unknown, Accept=JSON)
    assert status == 422 and "events[1].127: Unknown field number" in data.decode()
    many = pb.EventsRequest(events=[event] * 1001).SerializeToString()
    status, kind, data = await send(client, "/v1/events", many, Accept=JSON)
    assert status == 422 and "at most 1,000 rows" in data.decode()


@pytest.mark.parametrize(
    ("body", "status", "path", "said"),
    [
        (request(user_id="u" * 300), 422, "user_id", "length <= 256"),
        (request(count=501), 422, "count", "<= 500"),
        (request(session={"item_ids": [""]}), 422, "session.item_ids[0]", "length >= 1"),
        (request(filter={"price": {"min": float("nan")}}), 422, "filter.price.min", "a finite number, got nan"),
        (request(context={"x": pb.Scalar(number=float("inf"))}), 422, "context.x", "a finite number, got inf"),
        (request(user_id="u1") + wide(3), 422, "127", "Unknown field number"),
        (request(session={"item_ids": ["a"]})[:1] + b"\x03" + wide(1), 422, "session.127", "Unknown field number"),
        (b"\x28", 400, None, "no endcap.v1.RecommendRequest"),
        (b"\x0a\xff\xff\xff\xff\x07u1", 400, None, "no endcap.v1.RecommendRequest"),
        (b"\x0a\x02\xff\xfe", 400, None, "no endcap.v1.RecommendRequest"),
        (b"{}", 400, None, "no endcap.v1.RecommendRequest"),
        (b"\x0a\x01u" * (1 << 19), 413, None, "a body may have 1,048,576 bytes"),
    ],
)  # fmt: skip
async def test_mistakes_are_those_of_json(client: Client, body: bytes, status: int, path: str, said: str) -> None:
    """A length that lies, text that is no UTF-8 and a body that ends too early are malformed; what is out of bounds is
    named by its path. In JSON, and for who takes nothing else as the message Problem."""
    found, kind, data = await send(client, "/v1/recommendations", body, Accept="*/*")
    problem = msgspec.json.decode(data)
    assert (found, kind) == (status, "application/problem+json")
    assert said in problem["detail"] and (path is None or path in {one["path"] for one in problem.get("errors", [])})
    found, kind, data = await send(client, "/v1/recommendations", body, Accept=PROTOBUF)
    again = pb.Problem.FromString(data)
    assert (found, kind, again.status, again.title) == (status, PROTOBUF, status, problem["title"])
    assert [(one.path, one.message) for one in again.errors] == [
        (one["path"], one["message"]) for one in problem.get("errors", [])
    ]


async def test_what_is_not_written_is_406_and_what_is_not_read_415(client: Client) -> None:
    for path, body in (("/v1/recommendations", {}), ("/v1/rank", {"item_ids": ["a"]}), ("/v1/events", {"events": []})):
        for accept in ("text/html", "application/json;q=0", "application/vnd.apache.arrow.stream"):
            problem = await client.post(path, body, 406, headers={"Accept": accept})
            assert problem["type"] == "urn:endcap:problem:not-acceptable"
        await client.post(path, body, 202 if path == "/v1/events" else 200, headers={"Accept": "text/html, */*;q=0.1"})
        problem = await client.post(path, None, 415, data=b"x", headers={"Content-Type": "text/csv"})
        assert PROTOBUF in problem["detail"] and JSON in problem["detail"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON), ("*/*", JSON), ("application/*", JSON), (PROTOBUF, PROTOBUF),
        (f"{JSON};q=0.5, {PROTOBUF}", PROTOBUF), (f"{PROTOBUF};q=0.2, */*;q=0.3", JSON),
        (f"{JSON};q=0, */*", PROTOBUF), (f"{PROTOBUF}; proto=x; q=0, {JSON}", JSON),
    ],
)  # fmt: skip
def test_accept_and_the_straight_way_agree(accept: str | None, kind: str) -> None:
    assert chosen(accept, (JSON, PROTOBUF)) == kind
    if accept is not None:
        assert takes_json(accept.encode()) == (kind == JSON)


def test_nothing_acceptable_does_not_go_the_straight_way() -> None:
    assert not takes_json(b"text/html")
    with pytest.raises(NotAcceptable, match="there are application/json, application/x-protobuf"):
        chosen("text/html", (JSON, PROTOBUF))


def test_what_is_left_out_has_the_defaults_of_json() -> None:
    assert codec.recommend_request(pb.RecommendRequest()) == RecommendRequest()
    found = codec.rank_request(pb.RankRequest(item_ids=["a"], context={"n": pb.Scalar(), "w": pb.Scalar(whole=2)}))
    assert found == RankRequest(item_ids=["a"], context={"n": None, "w": 2})


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_message_is_a_request_or_a_mistake(data: st.DataObject) -> None:
    """Whichever bit is flipped and wherever it is cut: never anything else, and nothing left out in silence."""
    whole = request(
        user_id="u1", session={"item_ids": ["a", "b"]}, count=5, filter={"category": ["x"], "price": {"max": 9}},
        context={"a": pb.Scalar(text="DE"), "b": pb.Scalar(number=1.5)}, exclude_item_ids=["c"], explain=True,
    )  # fmt: skip
    damaged = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, 8 * len(damaged) - 1), max_size=4)):
        damaged[place // 8] ^= 1 << place % 8
    try:
        message = codec.parsed(pb.RecommendRequest, bytes(damaged))
        assert isinstance(codec.recommend_request(message), RecommendRequest)
    except (MalformedBody, InvalidRequest):
        pass


async def test_accept_may_stand_in_several_lines(client: Client) -> None:
    headers = CIMultiDict([("Accept", "text/html"), ("Accept", f"{JSON};q=0.5"), ("Accept", PROTOBUF)])
    async with client.session.post(client.url + "/v1/recommendations", json={}, headers=headers) as response:
        assert response.content_type == PROTOBUF


async def test_a_full_gate_refuses_in_the_words_that_a_client_takes(client: Client) -> None:
    recommender = client.app.api.answers.recommender
    assert recommender is not None
    recommender.limiter.in_flight += 2000
    status, kind, data = await send(client, "/v1/recommendations", b"", Accept=PROTOBUF)
    assert (status, kind, pb.Problem.FromString(data).type) == (503, PROTOBUF, "urn:endcap:problem:overloaded")
    status, kind, data = await send(client, "/v1/recommendations", b"", Accept="*/*")
    assert (status, kind) == (503, "application/problem+json")
    recommender.limiter.in_flight -= 2000
