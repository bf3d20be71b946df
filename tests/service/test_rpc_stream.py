"""Streams of the gRPC door: many requests on one call, and events by the thousand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import grpc
import grpc.aio
import pytest
from msgspec.structs import replace

from features.errors import FeatureStoreError
from service.admission import GradientLimit, Limiter
from service.events import LONGEST_LINE
from service.rpc.patience import Writer
from service.rpc.stream import MOST_IN_FLIGHT
from service.rpc.stubs import recommendations_pb2 as pb
from tests.service.conftest import counted
from tests.service.rpc_client import SERVICE, Rpc, asked, refused, serving

Code = grpc.StatusCode


@pytest.fixture
async def rpc(deployment: Path) -> AsyncIterator[Rpc]:
    async with serving(deployment) as one:
        yield one


def recommend(id_: str, **fields: Any) -> Any:
    return pb.StreamRequest(id=id_, recommend=asked(**fields))


async def replies(call: Any) -> dict[str, Any]:
    return {one.id: one async for one in call}


async def test_each_request_of_a_stream_is_answered_and_each_fails_alone(rpc: Rpc) -> None:
    wanted = [
        recommend("good", count=3),
        recommend("bad", count=0),
        pb.StreamRequest(id="ranked", rank=pb.RankRequest(user_id="u1", item_ids=["i00001", "i00002"])),
        recommend("nowhere", placement="nowhere"),
        pb.StreamRequest(id="empty"),
        pb.StreamRequest(id="x" * 65, recommend=asked()),
    ]
    found = await replies(rpc.stub.RecommendStream(iter(wanted)))
    assert len(found["good"].recommendation.items) == 3
    assert {one.item_id for one in found["ranked"].recommendation.items} == {"i00001", "i00002"}
    bad = found["bad"].problem
    assert (bad.type, bad.status, bad.errors[0].path) == ("urn:endcap:problem:invalid-request", 422, "count")
    assert found["nowhere"].problem.status == 404
    assert [one.path for one in found["empty"].problem.errors] == ["request"]
    assert [one.path for one in found["x" * 64].problem.errors] == ["id"]
    _, scrape = await rpc.http.get("/metrics")
    endpoint = f"/{SERVICE}/RecommendStream"
    assert counted(scrape, "endcap_requests_total", endpoint=endpoint, status="200") == 2
    assert counted(scrape, "endcap_requests_total", endpoint=endpoint, status="422") == 3


async def test_an_answer_leaves_as_soon_as_it_is_done(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request waits, and the second one's answer does not wait for it."""
    recommender = rpc.app.api.answers.answering()
    go, read = asyncio.Event(), recommender.shoppers.read

    async def slow_for_u1(request: Any, *given: Any) -> Any:
        if request.user_id == "u1":
            await go.wait()
        return await read(request, *given)

    monkeypatch.setattr(recommender.shoppers, "read", slow_for_u1)
    call = rpc.stub.RecommendStream()
    await call.write(recommend("first"))
    await call.write(recommend("second", user_id="u2"))
    assert (await call.read()).id == "second"
    go.set()
    assert (await call.read()).id == "first"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_so_many_are_in_flight_and_then_nothing_more_is_read(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = rpc.app.api.answers.answering()
    go, entered, real = asyncio.Event(), [], recommender.recommend

    async def held(*given: Any) -> Any:
        entered.append(given)
        await go.wait()
        return await real(*given)

    monkeypatch.setattr(recommender, "recommend", held)
    monkeypatch.setattr(Limiter, "full", lambda self: False)
    monkeypatch.setattr(recommender.limiter.limit, "_size", 1000.0)
    asking = asyncio.create_task(replies(rpc.stub.RecommendStream(recommend(str(n)) for n in range(200))))
    async with asyncio.timeout(20):
        while len(entered) < MOST_IN_FLIGHT:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert len(entered) == MOST_IN_FLIGHT
    go.set()
    assert len(await asking) == 200


BULK = (("endcap-priority", "bulk"),)


@pytest.mark.parametrize("metadata", [BULK, ()], ids=["bulk", "ordinary"])
async def test_a_client_that_sends_all_at_once_is_slowed_and_gets_every_answer_whole(
    rpc: Rpc, metadata: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the gate is: none is refused, none degraded."""
    limiter, recommender = rpc.app.api.answers.answering().limiter, rpc.app.api.answers.answering()
    monkeypatch.setattr(limiter, "limit", GradientLimit(4, most=4))
    patient_placements(recommender, monkeypatch)
    found = await replies(rpc.stub.RecommendStream((recommend(str(n)) for n in range(300)), metadata=metadata))
    assert len(found) == 300
    assert not [one.problem for one in found.values() if one.HasField("problem")]
    assert not [one.recommendation.degraded for one in found.values() if one.recommendation.degraded]
    assert limiter.refused == {"interactive": 0, "bulk": 0}


def patient_placements(recommender: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out because this machine is slow."""
    monkeypatch.setattr(recommender, "most_s", 20.0)
    get = recommender.placements.get

    def patient(name: str) -> Any:
        return replace(get(name), timeout_ms=20_000.0, max_timeout_ms=20_000.0)

    monkeypatch.setattr(recommender.placements, "get", patient)


async def test_bulk_waits_for_the_gate_no_longer_than_its_deadline(rpc: Rpc) -> None:
    limiter = rpc.app.api.answers.answering().limiter
    with limiter.admit(1.0), limiter.admit(1.0, bulk=True):
        metadata = (*BULK, ("endcap-timeout-ms", "50"))
        found = await replies(rpc.stub.RecommendStream(iter([recommend("a"), recommend("b")]), metadata=metadata))
    assert {(one.problem.status, one.problem.type.rpartition(":")[2]) for one in found.values()} == {
        (504, "deadline-exceeded")
    }
    assert limiter.refused["bulk"] == 0


async def test_bulk_that_a_call_does_not_say_is_by_the_placement_and_waits(
    rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = rpc.app.api.answers.answering()
    get = recommender.placements.get
    monkeypatch.setattr(recommender.placements, "get", lambda name: replace(get(name), priority="bulk"))
    call = rpc.stub.RecommendStream()
    with recommender.limiter.admit(1.0), recommender.limiter.admit(1.0, bulk=True):
        await call.write(recommend("waits"))
        await asyncio.sleep(0.1)
    assert (await call.read()).recommendation.items and recommender.limiter.refused["bulk"] == 0
    await call.done_writing()


async def test_bytes_that_are_no_request_are_told_without_an_id(rpc: Rpc) -> None:
    call = rpc.channel.stream_stream(f"/{SERVICE}/RecommendStream", None, pb.StreamReply.FromString)(
        iter([b"\x0a\xff", recommend("good").SerializeToString()])
    )
    found = await replies(call)
    assert found[""].problem.type == "urn:endcap:problem:malformed-body" and found["good"].recommendation.items


async def test_a_full_gate_refuses_requests_and_not_the_stream(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limiter, "full", lambda self: True)
    found = await replies(rpc.stub.RecommendStream(iter([recommend("a"), recommend("b")])))
    assert {one.problem.status for one in found.values()} == {503}


async def test_a_stream_on_which_nothing_is_asked_is_ended(deployment: Path) -> None:
    async with serving(deployment, idle_s=0.3) as rpc:
        call = rpc.stub.RecommendStream()
        await call.write(recommend("one"))
        assert (await call.read()).id == "one"
        found = await refused(call.read())
        assert (found.code, found.message) == (Code.DEADLINE_EXCEEDED, "no message arrived in 0.3 s")
        assert found.info.reason == "deadline-exceeded"


@pytest.mark.slow
async def test_a_client_that_stops_reading_is_given_up_and_holds_no_place(
    deployment: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its stream ends after `grpc.stall_s`; others are answered meanwhile."""
    async with serving(deployment, stall_s=0.5) as rpc:
        written = []
        server_write = Writer.write

        async def counting(writer: Writer, message: bytes) -> None:
            await server_write(writer, message)
            written.append(len(message))

        monkeypatch.setattr(Writer, "write", counting)
        call = rpc.stub.RecommendStream()
        sending = asyncio.create_task(send_for_ever(call))
        async with asyncio.timeout(60):
            while not sending.done():
                assert (await rpc.stub.Recommend(asked(count=1))).items
                await asyncio.sleep(0.05)
        before = len(written)
        await asyncio.sleep(0.3)
        assert len(written) == before and sum(written) < 8 << 20
        limiter = rpc.app.api.answers.answering().limiter
        assert limiter.in_flight == 0
        found = await refused(drained(call))
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await (await sending)
        assert (found.code, found.message) == (Code.DEADLINE_EXCEEDED, "a reply was not taken in 0.5 s")
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


async def send_for_ever(call: Any) -> asyncio.Task[None]:
    """Until the other side reads no more: the write that then waits. (To cancel it would be to cancel the call.)"""
    request = recommend("r", count=200, explain=True)
    while True:
        writing = asyncio.ensure_future(call.write(request))
        done, _ = await asyncio.wait({writing}, timeout=2)
        if not done:
            return writing


async def drained(call: Any) -> None:
    """Reads to the end, or to what ends it."""
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_stop_answers_what_is_in_flight_and_ends_the_stream(
    deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(deployment) as rpc:
        recommender = rpc.app.api.answers.answering()
        go, entered, real = asyncio.Event(), asyncio.Event(), recommender.recommend

        async def held(*given: Any) -> Any:
            entered.set()
            await go.wait()
            return await real(*given)

        monkeypatch.setattr(recommender, "recommend", held)
        call = rpc.stub.RecommendStream()
        await call.write(recommend("one"))
        await entered.wait()
        stopping = asyncio.create_task(rpc.app.stop())
        await asyncio.sleep(0.1)
        go.set()
        assert (await call.read()).recommendation.items
        assert (await refused(call.read())).code == Code.UNAVAILABLE
        async with asyncio.timeout(8):
            await stopping


async def test_a_stream_whose_client_goes_leaves_nothing_in_flight(
    rpc: Rpc, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recommender = rpc.app.api.answers.answering()
    entered = asyncio.Event()

    async def never(*_: Any, **__: Any) -> None:
        entered.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(recommender.shoppers, "read", never)
    call = rpc.stub.RecommendStream()
    for n in range(3):
        await call.write(recommend(str(n)))
    await entered.wait()
    call.cancel()
    async with asyncio.timeout(10):
        while recommender.limiter.in_flight:
            await asyncio.sleep(0.02)
    assert not caplog.records


# Events


def event(n: int, **fields: Any) -> Any:
    given = {"event_id": f"rpc-{time.time_ns()}-{n}", "user_id": "u1", "item_id": "i00001", "type": "view", **fields}
    return pb.Event(**given)


async def test_events_are_taken_in_once_and_a_bad_row_loses_nothing_of_the_rest(rpc: Rpc) -> None:
    twice = event(0)
    rows = [
        twice,
        event(1, user_id=""),
        event(2, type="stare"),
        event(3, value=float("nan")),
        twice,
        event(4, value=2.5),
    ]
    found = await rpc.stub.RecordEvents(iter(rows))
    assert (found.accepted, found.duplicates, found.rejected_count) == (2, 1, 3)
    said = {one.index: one.message for one in found.rejected}
    assert said[1] == "user_id: Missing" and said[2].startswith("type: no kind 'stare'")
    assert said[3] == "value: Expected a finite number, got nan"
    answer = await rpc.stub.Recommend(asked(), metadata=(("endcap-after", found.token),))
    assert "context" not in answer.degraded
    _, scrape = await rpc.http.get("/metrics")
    assert counted(scrape, "endcap_events_total", outcome="rejected") == 3


async def test_any_number_of_events_goes_in_by_batches(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    door = rpc.app.api.intake.events
    sizes, accept = [], door.intake.accept  # type: ignore[union-attr]

    async def noting(events: Any) -> Any:
        sizes.append(len(events))
        return await accept(events)

    monkeypatch.setattr(door.intake, "accept", noting)  # type: ignore[union-attr]
    found = await rpc.stub.RecordEvents(event(n) for n in range(1200))
    assert found.accepted == 1200 and sizes == [500, 500, 200]


async def test_rows_that_are_no_event_are_told_by_place(rpc: Rpc) -> None:
    rows = [
        b"\x0a\xff",
        event(1).SerializeToString() + b"\x78\x01",
        event(2, user_id="x" * LONGEST_LINE).SerializeToString(),
    ]
    call = rpc.channel.stream_unary(f"/{SERVICE}/RecordEvents", None, pb.EventsAccepted.FromString)
    said = {one.index: one.message for one in (await call(iter(rows))).rejected}
    assert said[0].startswith("no endcap.v1.Event")
    assert said[1] == "15: Unknown field number, sent as varint"
    assert said[2] == "the event is longer than 65,536 bytes"


async def test_no_event_is_lost_silently_when_the_store_does_not_take_it(
    rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = rpc.app.api.intake.events
    monkeypatch.setattr(door.intake, "accept", AsyncMock(side_effect=FeatureStoreError("gone")))  # type: ignore[union-attr]
    found = await refused(rpc.stub.RecordEvents(iter([event(1)])))
    assert (found.code, found.info.reason, found.retry.retry_delay.seconds) == (Code.UNAVAILABLE, "not-stored", 1)
    assert "Send the rest again" in found.message


async def test_a_client_that_stops_sending_events_is_given_up(deployment: Path) -> None:
    async with serving(deployment, stall_s=0.3) as rpc:
        call = rpc.stub.RecordEvents()
        await call.write(event(1))
        found = await refused(call)
        assert (found.code, found.info.reason) == (Code.DEADLINE_EXCEEDED, "deadline-exceeded")
