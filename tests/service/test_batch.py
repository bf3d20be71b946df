"""`:batch`: many users in one request, by clients that know NDJSON, Arrow and Protobuf only."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import resource
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pytest import MonkeyPatch

from service.accept import ARROW, JSON, NDJSON, PROTOBUF
from service.many import BatchConfig
from service.rpc.stubs import recommendations_pb2 as pb
from tests.service.batches import (
    PATH,
    RANK,
    answers,
    lines,
    messages,
    posted,
    refused,
    shown,
    stream,
)
from tests.service.conftest import Client, counted

USERS = ["u1", "nobody", None, "u2", "u1"]
SESSIONS = [None, ["i00003", "i00009"], ["i00007"], [], None]
COUNTS = [5, 3, None, 7, 1]


async def test_every_format_gives_the_answers_that_single_requests_get(client: Client) -> None:
    requests = [
        {"user_id": user, "count": count or 20, **({} if session is None else {"session": {"item_ids": session}})}
        for user, session, count in zip(USERS, SESSIONS, COUNTS, strict=True)
    ]
    single = [await client.recommend(**one) for one in requests]
    arrow = stream({"user_id": USERS, "session_item_ids": SESSIONS, "count": COUNTS}, rows=2)
    without_empty = [{name: one for name, one in row.items() if one != {"item_ids": []}} for row in requests]
    bodies = {JSON: json.dumps({"requests": requests}).encode(), NDJSON: lines(*requests), ARROW: arrow,
              PROTOBUF: messages(*without_empty)}  # fmt: skip
    for kind, body in bodies.items():
        for accept in (NDJSON, PROTOBUF):
            found = await answers(client, body, kind, accept)
            assert [one["index"] for one in found] == [0, 1, 2, 3, 4]
            for one, other in zip(found, single, strict=True):
                assert shown(one["recommendation"]) == shown(other)
                assert one["recommendation"].keys() == other.keys()
                assert one["recommendation"]["degraded"] == other["degraded"]
        rows = await answers(client, body, kind, ARROW)
        for row, other, user in zip(rows, single, USERS, strict=True):
            assert list(zip(row["item_ids"], row["sources"], strict=True)) == shown(other) and row["user_id"] == user
            assert row["scores"] == pytest.approx([one["score"] for one in other["items"]], rel=1e-5)
            assert {"name": row["model"], "version": row["version"], "group": row["group"]} == other["model"]
            assert (
                row["degraded"] == other["degraded"] and row["status"] is None and len(row["recommendation_id"]) == 32
            )
    _, text = await client.get("/metrics")
    assert counted(text, "endcap_batch_users_total", endpoint=PATH, status="200") == 60
    for kind, answer in ((ARROW, NDJSON), (PROTOBUF, ARROW), (JSON, PROTOBUF)):
        assert counted(text, "endcap_formats_total", endpoint=PATH, body=kind, answer=answer) == 1
    assert counted(text, "endcap_requests_total", endpoint=PATH, status="200") == 12
    assert counted(text, "endcap_answers_total", model="default") == 65


async def test_the_same_items_are_ranked_for_many_users_by_defaults(client: Client) -> None:
    body = {"requests": [{"user_id": "u1"}, {"user_id": "u2", "item_ids": ["i00001"]}],
            "defaults": {"item_ids": ["i00003", "i00004", "nothing"]}}  # fmt: skip
    single = await client.post("/v1/rank", {"user_id": "u1", **body["defaults"]})  # type: ignore[dict-item]
    message = pb.RankBatchRequest(**body).SerializeToString()
    for encoded, kind in ((json.dumps(body).encode(), JSON), (message, PROTOBUF)):
        first, second = await answers(client, encoded, kind, None, RANK)
        assert shown(first["recommendation"]) == shown(single)
        assert first["recommendation"]["missing_item_ids"] == ["nothing"]
        assert len(second["recommendation"]["items"]) == 1
    (row,) = await answers(
        client, stream({"user_id": ["u1"], "item_ids": [["i00003", "i00004", "x"]]}), ARROW, None, RANK
    )
    assert row["item_ids"] == [one["item_id"] for one in single["items"]] and row["missing_item_ids"] == ["x"]
    problem = await refused(client, stream({"user_id": ["u1"]}), ARROW, 422, None, RANK)
    assert problem["errors"] == [{"path": "item_ids", "message": "Missing"}]


async def test_all_that_a_request_may_say_can_be_said_in_columns(client: Client) -> None:
    asked = {"user_id": "u1", "count": 4, "exclude_item_ids": ["i00001"],
             "context": {"country": "Germany", "views_1h": 5}, "filter": {"price": {"min": 2.0, "max": 60.0}},
             "model_version": "1", "placement": "home"}  # fmt: skip
    single = await client.recommend(**asked)
    text = pa.array(["u1"]).dictionary_encode()
    columns = {
        "user_id": text, "count": pa.array([4], pa.uint8()),
        "exclude_item_ids": pa.array([["i00001"]], pa.large_list(text.type)),
        "context.country": pa.array(["Germany"], pa.string_view()), "context.views_1h": pa.array([5.0]),
        "filter_price_min": pa.array([2]), "filter_price_max": pa.array([60.0], pa.float32()), "item_id": pa.nulls(1),
        "model_version": ["1"], "placement": pa.array(["home"], pa.large_string()),
    }  # fmt: skip
    (row,) = await answers(client, stream(columns), ARROW)
    assert row["item_ids"] == [one["item_id"] for one in single["items"]] and row["version"] == "1"
    (row,) = await answers(client, stream({**columns, "filter_category": pa.array([["none such"]])}), ARROW)
    assert row["item_ids"] == [] and row["degraded"] == ["count"]


async def test_a_bad_user_fails_alone(client: Client) -> None:
    rows = [b'{"user_id": "u1"}', b'{"user_id": 5, "cnt": 1}', b"{", b'{"user_id": "u1", "placement": "hone"}',
            b'{"user_id": "u1", "user_id": "u2"}', b'{"count": NaN}', b"  ", b'{"user_id": "u2"}']  # fmt: skip
    found = await answers(client, b"\n".join(rows), NDJSON)
    assert [one.get("problem", {}).get("status") for one in found] == [None, 422, 400, 404, 400, 400, None]
    assert {one["path"] for one in found[1]["problem"]["errors"]} == {"user_id", "cnt"}
    parts = [messages({"user_id": "u1"}), messages({"user_id": "u" * 300, "count": 501}), b"\x0a\x02\x0a\xff",
             messages({"user_id": "u1", "placement": "hone"}), b"\x0a\x02\x78\x01", b"\x0a\x02\x08\x01",
             messages({"filter": {"price": {"min": float("nan")}}}), messages({"user_id": "u2"})]  # fmt: skip
    found = await answers(client, b"".join(parts), PROTOBUF, NDJSON)
    assert [one.get("problem", {}).get("status") for one in found] == [None, 422, 400, 404, 422, 422, 422, None]
    paths = [[one["path"] for one in row["problem"].get("errors", ())] for row in found[1:7]]
    assert paths == [["user_id", "count"], [], [], ["15"], ["user_id"], ["filter.price.min"]]
    assert found[1:7] == [
        {**one, "problem": {key: value for key, value in one["problem"].items() if value != []}}
        for one in (await answers(client, b"".join(parts), PROTOBUF))[1:7]
    ]
    sessions = [None, None, ["a", None], ["i00001"] * 2001]
    columns = {"user_id": ["u1", "u" * 300, "u1", "u2"], "session_item_ids": sessions, "placement": ["home"] * 4}
    rows = await answers(client, stream(columns), ARROW)
    assert [row["status"] for row in rows] == [None, 422, 422, 422]
    assert rows[1]["slug"] == "invalid-request" and rows[1]["detail"].startswith("user_id: ")
    assert "session.item_ids[1]" in rows[2]["detail"] and "has 2,001 items" in rows[3]["detail"]
    _, text = await client.get("/metrics")
    assert counted(text, "endcap_batch_users_total", endpoint=PATH, status="422") == 12


async def test_a_fault_of_our_own_is_that_user_s_and_has_its_traceback_in_the_log(
    client: Client, monkeypatch: MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recommender = client.app.api.answers.recommender
    assert recommender is not None
    ask = recommender.recommend

    async def failing(request: Any, *rest: Any) -> Any:
        if request.user_id == "u2":
            raise ZeroDivisionError
        return await ask(request, *rest)

    monkeypatch.setattr(recommender, "recommend", failing)
    found = await answers(client, lines({"user_id": "u1"}, {"user_id": "u2"}), NDJSON)
    assert "recommendation" in found[0] and found[1]["problem"]["type"] == "urn:endcap:problem:internal-error"
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("columns", "path", "said"),
    [
        ({"users": ["u1"]}, "users", "Unknown field; known: user_id, "),
        ({"count": [1]}, "user_id", "Missing"),
        ({"user_id": [1]}, "user_id", "is int64, expected string"),
        ({"user_id": ["u1"], "count": ["5"]}, "count", "is string, expected integer"),
        ({"user_id": ["u1"], "session_item_ids": ["i"]}, "session_item_ids", "is string, expected list<string>"),
        ({"user_id": ["u1"], "session_item_ids": [[[1]]]}, "session_item_ids", "expected list<string>"),
        ({"user_id": ["u1"], "context.x": [[1]]}, "context.x", "expected string, number or boolean"),
        ({"user_id": ["u1"], "filter_price_min": [True]}, "filter_price_min", "is bool, expected number"),
        ({"user_id": [b"u1"]}, "user_id", "is binary, expected string"),
        ({"user_id": pa.array([pa.array([1]).dictionary_encode()[0]])}, "user_id", "is dictionary<values=int64"),
    ],
)  # fmt: skip
async def test_a_wrong_schema_says_which_field(client: Client, columns: dict[str, Any], path: str, said: str) -> None:
    problem = await refused(client, stream(columns), ARROW, 422)
    assert any(one["path"] == path and said in one["message"] for one in problem["errors"]), problem


async def test_json_that_is_no_batch_is_refused_as_a_whole(client: Client) -> None:
    for body, status, said in (
        (b'{"requests": [], "request": []}', 422, "request: Unknown field"),
        (b"{}", 422, "requests: Missing"),
        (b'{"requests": 5}', 422, "requests: Expected"),
        (b"[]", 422, "Expected `object`"),
        (b'{"requests": [{}], "requests": [{}]}', 400, "stands twice"),
        (b'{"requests": [{}], "defaults": {"count": 0}}', 422, "defaults.count: "),
        (b'{"requests": [{}], "defaults": {"usr": 0}}', 422, "defaults.usr: Unknown field"),
        (b'{"requests": [{}], "defaults": 5}', 422, "defaults: Expected `object`"),
        (b"{", 400, "truncated"),
        (b"", 400, "empty"),
    ):
        assert said in (await refused(client, body, JSON, status))["detail"], body
    assert await answers(client, b'{"requests": []}', JSON) == [] and await answers(client, b"\n", NDJSON) == []
    assert await answers(client, stream({"user_id": pa.array([], pa.string())}), ARROW) == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"\x0a\xff\xff\xff\xff\x07u", 400, "requests of 2,147,483,647 bytes, but 1 are left"),
        (messages({"user_id": "u1"})[:-1], 400, "requests of 4 bytes, but 3 are left"),
        (b"\x0a" + b"\xff" * 20, 400, "at byte 1 a number does not end"),
        (b"\x0a", 400, "at byte 1 a number does not end"),
        (b"\x0c", 400, "at byte 1 no field begins"),
        (b"\x02\x00", 400, "at byte 1 no field begins"),
        (b"{}", 422, "15: Unknown field number, sent as group"),
        (b"\x1a\x00" * (1 << 20), 422, "3: Unknown field number, sent as length-delimited"),
        (b"\x08\x05", 422, "requests: Sent as varint, which is another type's"),
        (b"\x12\x02\x78\x01", 422, "defaults.15: Unknown field number, sent as varint"),
        (messages({}, count=0), 422, "defaults.count: "),
        (messages({}, context={"x": pb.Scalar(number=float("inf"))}), 422, "defaults.context.x: Expected a finite"),
        (b"\x12\x00" * (1 << 20), 400, "defaults stands twice"),
        (b"\x0a\x00" * (1 << 20), 422, "more than 10,000 users"),
    ],
    ids=lambda one: repr(one)[:30],
)  # fmt: skip
async def test_a_message_that_is_no_batch_is_refused_as_a_whole(
    client: Client, body: bytes, status: int, said: str
) -> None:
    """Lengths are looked at before anything is made of them, and a million fields no further than the first."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert said in (await refused(client, body, PROTOBUF, status, JSON + ", " + NDJSON))["detail"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24 << 10  # KiB
    assert await answers(client, b"", PROTOBUF) == []


async def test_a_request_of_a_batch_is_no_longer_than_one_alone_may_be(client: Client) -> None:
    """That is its own mistake."""
    long = {"user_id": "u1", "exclude_item_ids": ["i" * 1000] * 1100}
    for body, kind in ((lines(long, {}), NDJSON), (messages(long, {}), PROTOBUF)):
        first, second = await answers(client, body, kind, NDJSON)
        assert first["problem"]["status"] == 400 and "service.max_body_bytes" in first["problem"]["detail"]
        assert "recommendation" in second


async def test_formats_are_negotiated(client: Client) -> None:
    problem = await refused(client, b"a,b", "text/csv", 415)
    assert (
        "application/json or application/x-ndjson or application/vnd.apache.arrow.stream or application/x-protobuf"
        in problem["detail"]
    )
    assert (await refused(client, lines({}), NDJSON, 406, "application/json"))["type"].endswith("not-acceptable")
    for body, kind in ((stream({"user_id": ["u1"]}), ARROW), (messages({"user_id": "u1"}), PROTOBUF)):
        async with posted(client, body, kind, "*/*") as response:
            assert response.content_type == kind
        async with posted(client, b"{", JSON, PROTOBUF) as response:
            assert (response.status, response.content_type) == (400, PROTOBUF)
            assert pb.Problem.FromString(await response.read()).type.endswith("malformed-body")
    async with posted(client, lines({}), NDJSON, f"{NDJSON};q=0.5, {ARROW}") as response:
        assert response.content_type == ARROW


async def test_more_users_or_bytes_than_may_be_are_refused_before_anybody_is_asked(client: Client) -> None:
    api = client.app.api.batch
    many = {"requests": [{}] * 10_001}
    assert "more than 10,000 users" in (await refused(client, json.dumps(many).encode(), JSON, 422))["detail"]
    assert "more than 10,000" in (await refused(client, b"{}\n" * 10_001, NDJSON, 422))["detail"]
    users = pa.nulls(10_001, pa.string())
    assert "more than 10,000" in (await refused(client, stream({"user_id": users}), ARROW, 422))["detail"]
    assert "more than 10,000" in (await refused(client, messages(*[{}] * 10_001), PROTOBUF, 422, "*/*"))["detail"]
    api.config = BatchConfig(max_body_bytes=2000)
    long = "u" * 2000
    for body, kind in (
        (b"{}\n" * 1000, NDJSON), (stream({"user_id": [long]}), ARROW), (messages({"user_id": long}), PROTOBUF)
    ):  # fmt: skip
        assert "may have 2,000 bytes" in (await refused(client, body, kind, 413, "*/*"))["detail"]
    _, text = await client.get("/metrics")
    assert counted(text, "endcap_answers_total", model="default") == 0


EXAMPLES = {"pyarrow": '"u00012"', "BatchReply": r"^0( i\d{5}){20} $"}
"""What the example of the docs that has the first word prints."""


@pytest.mark.parametrize(("word", "said"), EXAMPLES.items())
async def test_the_examples_of_the_docs_run(
    client: Client, capsys: pytest.CaptureFixture[str], word: str, said: str
) -> None:
    text = (Path(__file__).parents[2] / "docs/transports.md").read_text()
    (code,) = (one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in one)
    code = code.replace("http://localhost:8080", client.url).replace(".to_pandas()", "")
    await asyncio.to_thread(exec, code, {})
    assert re.search(said, capsys.readouterr().out, re.MULTILINE)


async def test_gzip_is_read_and_a_bomb_is_refused_by_its_size(client: Client) -> None:
    for body, kind, status in (
        (lines({"user_id": "u1"}), NDJSON, 200),
        (stream({"user_id": ["u1"]}), ARROW, 200),
        (messages({"user_id": "u1"}), PROTOBUF, 200),
        (b" " * (64 << 20), NDJSON, 413),
        (b"\n" * (64 << 20), ARROW, 413),
        (b"\0" * (64 << 20), PROTOBUF, 413),
    ):
        headers = {"Content-Type": kind, "Content-Encoding": "gzip"}
        data = io.BytesIO(gzip.compress(body))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with client.session.post(client.url + PATH, data=data, headers=headers) as response:
            assert response.status == status, await response.read()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10  # KiB; a body may have 16 MiB
