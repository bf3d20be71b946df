"""The open loop, over each of its transports."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from load.doors import door_of
from load.errors import LoadError
from load.outcome import Outcome, Planned
from load.schedule import constant
from tests.load.conftest import Stub
from tests.load.play import Way, add_up, play


async def test_a_pause_of_the_server_shows_in_an_open_loop_and_hides_in_a_closed_one(way: Way) -> None:
    """A 100 ms pause meets every request due in it; a closed loop stops asking, and so counts it once in 450."""
    outcomes, _ = await way.play("pause/open", constant(300, 1.5), connections=64)
    latency = np.array([outcome.latency for outcome in outcomes])
    closed = np.array(await way.closed("pause/closed", 300, 450))
    assert latency.max() > 0.08
    assert closed.max() > 0.08
    open_p99, closed_p99 = (np.percentile(each, 99, method="inverted_cdf") for each in (latency, closed))
    assert closed_p99 < 0.08
    assert open_p99 > closed_p99
    assert (latency > 0.05).sum() > 3 * (closed > 0.05).sum()


async def test_a_starved_client_reports_its_own_lateness_and_counts_it_in_the_latency(way: Way) -> None:
    asyncio.get_running_loop().call_later(0.2, time.sleep, 0.15)
    outcomes, _ = await way.play("ok", constant(200, 0.6))
    assert max(outcome.lateness for outcome in outcomes) > 0.1
    late_p99 = add_up(outcomes).lateness.percentile(99)
    assert late_p99 is not None
    assert late_p99 > 0.1
    assert all(outcome.latency >= outcome.lateness >= 0 for outcome in outcomes)


async def test_every_status_is_an_answer_and_is_counted(way: Way) -> None:
    outcomes, run = await way.play("cycle", constant(400, 0.1))
    tally = add_up(outcomes)
    assert list(tally.statuses.values()) == [20, 10, 10]
    assert set(tally.statuses) in ({200, 404, 503}, {"OK", "NOT_FOUND", "UNAVAILABLE"})
    assert (tally.planned, tally.answered, tally.ok, run.connect_failures) == (40, 40, 20, 0)
    assert tally.error_share() == pytest.approx(0.5)
    assert not tally.errors
    assert tally.latency.count == 20  # a quick refusal would flatter it
    assert tally.failures.count == 20


async def test_degraded_answers_and_stages_are_read_from_the_answer(way: Way) -> None:
    tally = add_up((await way.play("degraded", constant(400, 0.1)))[0])
    assert (tally.ok, tally.degraded_answers, tally.degraded) == (40, 10, {"user_recent": 10})
    timed = add_up((await way.play("ok", constant(400, 0.1)))[0])
    assert {name: stage.count for name, stage in timed.stages.items()} == {"read": 40, "rank": 40}
    assert (timed.unreadable_answers, timed.unreadable_timings) == (0, 0)


@pytest.mark.parametrize("path", ["/drop", "/half"])
async def test_a_dropped_connection_is_an_error_in_the_result_and_the_next_request_gets_a_new_one(
    stub: Stub, path: str
) -> None:
    outcomes, run = await play(stub.url(path), constant(200, 0.1))
    assert [outcome.error for outcome in outcomes] == ["dropped"] * 20
    assert run.connections >= 20


async def test_what_is_unanswered_at_the_end_is_an_error_with_the_time_it_waited(stub: Stub) -> None:
    """Two connections hang, so eight of ten requests are never even sent; all have waited from their intended time."""
    outcomes, _ = await play(stub.url("/hang"), constant(100, 0.1), connections=2, grace=0.3)
    assert [outcome.error for outcome in outcomes] == ["unanswered"] * 2 + ["unsent"] * 8
    assert all(outcome.latency >= 0.39 - outcome.at for outcome in outcomes)
    assert [outcome.since_sent is None for outcome in outcomes] == [False] * 2 + [True] * 8
    tally = add_up(outcomes)
    assert tally.latency.count == 10
    assert (tally.planned, tally.sent, tally.ok) == (10, 2, 0)


async def test_what_hangs_is_unanswered_whatever_the_transport_and_has_waited(way: Way) -> None:
    outcomes, _ = await way.play("hang", constant(100, 0.1), connections=10, grace=0.3)
    assert [outcome.error for outcome in outcomes] == ["unanswered"] * 10
    assert all(outcome.latency >= 0.39 - outcome.at for outcome in outcomes)
    assert add_up(outcomes).latency.count == 10


async def test_connections_are_bounded_and_waiting_for_one_counts_as_latency(stub: Stub) -> None:
    """One connection at 20 ms a request carries at most 50/s: of 200/s the last waits for all those before it."""
    outcomes, run = await play(stub.url("/slow"), constant(200, 0.2), connections=1)
    assert run.connections == 1
    assert all(outcome.answer is not None for outcome in outcomes)
    assert outcomes[-1].latency > 0.4
    last_since_sent = outcomes[-1].since_sent
    assert last_since_sent is not None
    assert last_since_sent < outcomes[-1].latency / 2
    assert outcomes[-1].lateness < outcomes[-1].latency / 2  # the queue is not the client's own lateness


async def test_no_request_waits_for_the_answer_to_another(way: Way) -> None:
    """All 32 requests of one moment are with the server at once when there are connections enough."""
    await way.play("slow", [0.0] * 32, connections=32)
    assert (await asyncio.to_thread(way.log))["slow_at_once"] > 16


async def test_a_client_that_is_behind_still_reads_answers(way: Way) -> None:
    """Requests that are all due at once go on until the first answer is seen, which must not take the last of them."""
    outcomes = list[Outcome]()
    sent = 0

    def plan() -> Iterator[Planned[Any]]:
        nonlocal sent
        while not outcomes and sent < 100_000:
            sent += 1
            yield Planned(0.0, way.request("slow"))

    await way.loop(outcomes.append, grace=0.5).run(plan())
    assert sent < 100_000
    assert len(outcomes) == sent


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_a_server_that_is_not_there_is_refused_before_anything_is_sent(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(LoadError, match=f"cannot connect to 127.0.0.1:{port}"):
        await Way(door_of(f"{scheme}://127.0.0.1:{port}"), str, str).play("ok", [0.0])


async def test_a_failing_sink_ends_the_run_instead_of_losing_outcomes(way: Way) -> None:
    def sink(outcome: Outcome) -> None:
        raise ZeroDivisionError

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    with pytest.raises(RuntimeError, match="1 requests went out, 0 outcomes"):
        await way.loop(sink, 1, 1).run([Planned(0.0, way.request("ok"))])


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_a_server_that_says_nothing_is_given_up_after_the_grace(scheme: str) -> None:
    """It takes connections; over HTTP that is enough to begin, over gRPC the two have to greet each other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        way = Way(door_of(f"{scheme}://127.0.0.1:{port}"), lambda how: b"", str)
        if scheme == "http":
            assert [one.error for one in (await way.play("ok", [0.0], grace=0.2))[0]] == ["unanswered"]
        else:
            with pytest.raises(LoadError, match=f"cannot connect to 127.0.0.1:{port}: no answer"):
                await way.play("ok", [0.0], grace=0.2)
