"""The gRPC door, asked by grpcio's own clients: the same answers and errors as over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import grpc
import grpc.aio
import msgspec
import numpy as np
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from features.errors import FeatureStoreError
from ranking.errors import BundleError, EngineError
from service.admission import Limiter
from service.config import read_config
from service.errors import LOOKS, DeadlineExceeded, FieldError, InvalidRequest, Overloaded
from service.rpc.status import CODES
from service.rpc.stubs import grpc_service_pb2, grpc_service_pb2_grpc
from service.rpc.stubs import recommendations_pb2 as pb
from service.rpc.stubs.recommendations_pb2_grpc import RecommendationsStub
from tests.service.conftest import counted
from tests.service.rpc_client import SERVICE, Rpc, asked, refused, serving

Code = grpc.StatusCode


@pytest.fixture
async def rpc(deployment: Path) -> AsyncIterator[Rpc]:
    async with serving(deployment) as one:
        yield one


def same(message: Any, answer: dict[str, Any]) -> None:
    """A pb.Recommendation says what the JSON answer to the same request said."""
    assert [(one.item_id, one.source) for one in message.items] == [
        (one["item_id"], one["source"]) for one in answer["items"]
    ]
    scores = [one["score"] for one in answer["items"]]
    assert [np.float32(one.score) for one in message.items] == [np.float32(one) for one in scores]
    assert {"name": message.model.name, "version": message.model.version, "group": message.model.group} == answer[
        "model"
    ]
    assert list(message.degraded) == answer["degraded"]
    assert {name: view.status for name, view in message.features.items()} == {
        name: view["status"] for name, view in answer["features"].items()
    }
    assert list(message.missing_item_ids) == answer.get("missing_item_ids", [])


REQUESTS: list[dict[str, Any]] = [
    {"user_id": "u1"},
    {"user_id": "nobody", "count": 500},
    {"session": {"item_ids": ["i00003", "i00004"]}, "count": 5},
    {"placement": "similar", "item_id": "i00007", "count": 3},
    {"user_id": "u2", "exclude_item_ids": ["i00001", "i00002"], "filter": {"price": {"min": 0.0, "max": 1e6}}},
    {"user_id": "u2", "model_version": "1", "explain": True, "count": 4},
    {"user_id": "u3", "context": {"country": "FR"}, "count": 4},
]


def message_of(request: dict[str, Any]) -> Any:
    context = {key: pb.Scalar(text=one) for key, one in request.get("context", {}).items()}
    return pb.RecommendRequest(**{**request, "context": context})


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
async def test_an_answer_is_that_of_http(rpc: Rpc, request_: dict[str, Any]) -> None:
    over_http = await rpc.http.recommend(**request_)
    message = await rpc.stub.Recommend(message_of(request_))
    same(message, over_http)
    assert message.recommendation_id != over_http["recommendation_id"]
    assert message.took_ms > 0
    if request_.get("explain"):
        for one, other in zip(message.items, over_http["items"], strict=True):
            assert (one.explain.title, one.explain.category) == (
                other["explain"]["title"],
                other["explain"]["category"],
            )
            assert one.explain.retrieval_score == other["explain"]["retrieval_score"]
        inputs = orjson.loads(message.inputs_json)
        assert inputs.keys() == over_http["inputs"].keys()


async def test_a_rank_is_that_of_http(rpc: Rpc) -> None:
    body = {"user_id": "u1", "item_ids": ["i00005", "i00001", "none", "i00009"]}
    found = await rpc.stub.Rank(pb.RankRequest(**body))
    same(found, await rpc.http.post("/v1/rank", body))
    assert {one.item_id for one in found.items} == {"i00005", "i00001", "i00009"}


def test_a_client_without_a_loop_is_answered_too(deployment: Path) -> None:
    """grpcio's threads, the server in a loop of another one."""

    async def ask() -> tuple[int, dict[str, Any]]:
        async with serving(deployment) as rpc:

            def blocking() -> tuple[int, dict[str, Any]]:
                with grpc.insecure_channel(f"127.0.0.1:{rpc.port}") as channel:
                    found, call = RecommendationsStub(channel).Recommend.with_call(asked(count=3))
                    return len(found.items), dict(call.trailing_metadata())

            return await asyncio.to_thread(blocking)

    items, trailing = asyncio.run(ask())
    assert items == 3
    assert re.search(r"decode;dur=.*engine;dur=.*encode_protobuf;dur=.*total;dur=", trailing["server-timing"])


async def test_the_example_of_the_docs_runs(rpc: Rpc, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs/transports.md").read_text()
    (code,) = re.findall(r"```python\n(import grpc\n.*?)```", text, re.DOTALL)
    await asyncio.to_thread(exec, code.replace("localhost:8081", f"127.0.0.1:{rpc.port}"), {})
    assert re.fullmatch(r"(i\d{5} -?[\d.e-]+ \w+\n){3}", capsys.readouterr().out)


async def test_each_call_is_counted_under_its_method(rpc: Rpc) -> None:
    await rpc.stub.Recommend(asked())
    await refused(rpc.stub.Recommend(asked(count=0)))
    _, scrape = await rpc.http.get("/metrics")
    endpoint = f"/{SERVICE}/Recommend"
    assert counted(scrape, "endcap_requests_total", endpoint=endpoint, status="200", placement="home") == 1
    assert counted(scrape, "endcap_requests_total", endpoint=endpoint, status="422") == 1
    assert counted(scrape, "endcap_request_seconds_count", endpoint=endpoint) == 2


async def test_an_answer_can_be_asked_why_like_any_other(rpc: Rpc) -> None:
    """It is in the serving log."""
    made = await rpc.stub.Recommend(asked(count=3))
    status, text = await rpc.http.get(f"/v1/recommendations/{made.recommendation_id}")
    assert status == 200, text


# Errors


async def test_every_bad_field_is_named_as_over_http(rpc: Rpc) -> None:
    body = {"user_id": "", "count": 501, "session": {"item_ids": ["i00001", ""]}, "filter": {"price": {"min": -1.0}}}
    over_http = await rpc.http.post("/v1/recommendations", body, 422)
    found = await refused(rpc.stub.Recommend(message_of(body)))
    assert found.code == Code.INVALID_ARGUMENT and found.info.reason == "invalid-request"
    assert found.info.domain == "endcap" and found.retry is None
    assert found.fields == {one["path"]: one["message"] for one in over_http["errors"]}
    assert found.fields.keys() == {"user_id", "count", "session.item_ids[1]", "filter.price.min"}
    assert sorted(found.message.split("; ")) == sorted(over_http["detail"].split("; "))
    assert "total;dur=" in found.trailing["server-timing"]


REFUSED = [
    (asked(placement="nowhere"), Code.NOT_FOUND, "unknown-placement"),
    (asked(model_version="99"), Code.NOT_FOUND, "unknown-version"),
    (asked(placement="similar"), Code.INVALID_ARGUMENT, "invalid-request"),
    (asked(context={"shoe_size": pb.Scalar(whole=44)}), Code.INVALID_ARGUMENT, "invalid-request"),
    (asked(context={"country": pb.Scalar(number=float("nan"))}), Code.INVALID_ARGUMENT, "invalid-request"),
    (asked(filter={"price": {"max": float("inf")}}), Code.INVALID_ARGUMENT, "invalid-request"),
]


@pytest.mark.parametrize(("message", "code", "reason"), REFUSED, ids=str)
async def test_what_cannot_be_answered_says_why(rpc: Rpc, message: Any, code: Any, reason: str) -> None:
    found = await refused(rpc.stub.Recommend(message))
    assert (found.code, found.info.reason) == (code, reason)


async def test_a_number_that_json_has_not_is_named(rpc: Rpc) -> None:
    found = await refused(rpc.stub.Recommend(asked(filter={"price": {"max": float("inf")}})))
    assert found.fields == {"filter.price.max": "Expected a finite number, got inf"}


def error_of(kind: Any) -> Exception:
    if kind is InvalidRequest:
        return InvalidRequest(FieldError("count", "is odd"))
    error: Exception = BundleError("models/default/3", "is odd") if kind is BundleError else kind("is odd")
    return error


async def test_every_error_has_a_code_and_details(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of the table the request path raises."""
    for kind, look in LOOKS.items():
        monkeypatch.setattr(rpc.app.api.answers.answering(), "recommend", AsyncMock(side_effect=error_of(kind)))
        found = await refused(rpc.stub.Recommend(asked()))
        assert found.code == CODES[look.status] and found.info.reason == look.slug
        assert (None if found.retry is None else found.retry.retry_delay.seconds) == look.retry_after_s
        assert found.message == str(error_of(kind))


def test_which_codes_mean_send_it_again() -> None:
    again = {kind for kind, look in LOOKS.items() if CODES[look.status] == Code.UNAVAILABLE}
    assert {Overloaded, FeatureStoreError} <= again and not {DeadlineExceeded, EngineError, InvalidRequest} & again
    assert all((LOOKS[kind].retry_after_s is not None) == (kind in again) for kind in LOOKS)


async def test_what_nobody_foresaw_tells_the_client_nothing_and_the_log_all(
    rpc: Rpc, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rpc.app.api.answers.answering(), "recommend", AsyncMock(side_effect=ValueError("a secret")))
    found = await refused(rpc.stub.Recommend(asked()))
    assert (found.code, found.info.reason) == (Code.INTERNAL, "internal-error") and "secret" not in found.message
    assert "a secret" in caplog.text


async def test_a_full_gate_refuses_before_a_message_is_read(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    """So what is refused costs next to nothing: not even its mistakes are looked for."""
    monkeypatch.setattr(Limiter, "full", lambda self: True)
    found = await refused(rpc.stub.Recommend(asked(count=0)))
    assert (found.code, found.info.reason, found.retry.retry_delay.seconds) == (Code.UNAVAILABLE, "overloaded", 1)
    assert rpc.app.api.answers.answering().limiter.refused["interactive"] == 1


async def test_many_mistakes_fit_into_what_a_client_takes_of_metadata(rpc: Rpc) -> None:
    """A client's own limit is 8 KiB; beyond it a call fails without a reason."""
    message = asked(exclude_item_ids=["x" * 257] * 30, session=pb.Session(item_ids=["é" * 300] * 30))
    found = await refused(rpc.stub.Recommend(message))
    assert (found.code, found.info.reason) == (Code.INVALID_ARGUMENT, "invalid-request")
    assert len(found.fields) > 5 and "" in found.fields


# Deadlines and metadata


async def test_the_clients_deadline_is_the_budget(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    recommender = rpc.app.api.answers.answering()
    begin = recommender.begin

    def noting(request: Any, place: str, call: Any, trace: Any) -> Any:
        seen.append(call)
        return begin(request, place, call, trace)

    monkeypatch.setattr(recommender, "begin", noting)
    await rpc.stub.Recommend(asked())
    await rpc.stub.Recommend(asked(), timeout=9)
    await rpc.stub.Recommend(asked(), timeout=9, metadata=(("endcap-timeout-ms", "4000"),))
    await rpc.stub.Recommend(asked(), metadata=(("endcap-priority", "bulk"), ("endcap-after", "0-0")))
    assert seen[0].timeout_s is None and 7 < seen[1].timeout_s < 9.1
    await rpc.stub.Recommend(asked(), timeout=9, metadata=(("endcap-timeout-ms", "90000"),))
    assert seen[2].timeout_s == 4.0 and 7 < seen[4].timeout_s < 9.1
    assert (seen[3].bulk, seen[3].after) == (True, "0-0")


async def test_metadata_that_says_nothing_we_know_is_refused(rpc: Rpc) -> None:
    found = await refused(rpc.stub.Recommend(asked(), metadata=(("endcap-priority", "urgent"),)))
    assert found.code == Code.INVALID_ARGUMENT and "Endcap-Priority" in found.fields


async def test_a_short_deadline_leaves_out_what_there_is_no_time_for(rpc: Rpc) -> None:
    """As `Endcap-Timeout-Ms` does: with an engine that takes minutes, a second is enough for popular items only."""
    for rung in range(8):
        rpc.app.api.answers.answering().shares.learn("home", rung, 600.0)
    assert "popular" in (await rpc.stub.Recommend(asked(), timeout=1)).degraded
    late = await refused(rpc.stub.Recommend(asked(), metadata=(("endcap-timeout-ms", "0"),)))
    assert (late.code, late.info.reason) == (Code.DEADLINE_EXCEEDED, "deadline-exceeded")


async def test_a_cancelled_call_gives_its_place_back(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does one whose deadline has passed; each is counted as what it was."""
    recommender = rpc.app.api.answers.answering()
    entered = asyncio.Event()

    async def never(*_: Any, **__: Any) -> None:
        entered.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(recommender.shoppers, "read", never)
    call = rpc.stub.Recommend(asked())
    await entered.wait()
    assert recommender.limiter.in_flight == 1
    call.cancel()
    entered.clear()
    late = await refused(rpc.stub.Recommend(asked(), timeout=0.2))
    assert late.code == Code.DEADLINE_EXCEEDED
    for status in ("499", "504"):
        async with asyncio.timeout(10):
            while not await ended_with(rpc, status):
                await asyncio.sleep(0.02)
    assert recommender.limiter.in_flight == 0


async def ended_with(rpc: Rpc, status: str) -> float:
    """How many calls of Recommend did."""
    _, scrape = await rpc.http.get("/metrics")
    return counted(scrape, "endcap_requests_total", endpoint=f"/{SERVICE}/Recommend", status=status)


async def test_the_models_themselves_are_on_the_same_port_where_that_door_is_open(deployment: Path) -> None:
    """The Open Inference Protocol's service, in health and reflection too; what it answers is in test_oip_grpc.py."""
    config = read_config(deployment)
    config = msgspec.structs.replace(config, oip=msgspec.structs.replace(config.oip, enabled=True))
    async with serving(deployment, config) as rpc:
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(rpc.channel)
        assert (await stub.ServerReady(grpc_service_pb2.ServerReadyRequest())).ready
        health = health_pb2_grpc.HealthStub(rpc.channel)
        state = await health.Check(health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"))
        assert state.status == health_pb2.HealthCheckResponse.SERVING
