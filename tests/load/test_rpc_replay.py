"""Whole replays over gRPC: real processes against a real server. What holds for every transport is in test_client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from load.cli import main
from load.doors import door_of
from load.outcome import Planned
from load.replay import Progress, Replay, play, processes_for
from load.replay_plan import Pace, survey
from load.rpc.channels import Answer
from load.rpc.door import RpcDoor
from load.schedule import constant
from tests.load.conftest import RpcStub, Stub, asked, running
from tests.load.logs import post, write_log
from tests.load.play import Way

RECOMMENDATIONS = "/v1/recommendations"


def steady(path: Path, placement: str, count: int, rate: float = 200.0) -> Path:
    """`count` requests of one placement, evenly spaced, each for a shopper of its own."""
    rows = (
        post(round(n / rate * 1e6), RECOMMENDATIONS, {"user_id": f"{path.stem}{n}", "placement": placement})
        for n in range(count)
    )
    return write_log(path, rows)


def replay(url: str, log: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit status and result."""
    out = log.with_suffix(".json")
    status = main(["replay", str(log), url, "--json", str(out), *arguments])
    return status, orjson.loads(out.read_bytes())


def came(rpc_stub: RpcStub, users: str) -> list[dict[str, Any]]:
    """The calls about shoppers whose ids begin so."""
    return [call for call in rpc_stub.log()["calls"] if call.get("user", "").startswith(users)]


def test_several_processes_send_each_call_of_the_log_once_over_connections_of_their_own(
    rpc_stub: RpcStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    log = steady(tmp_path / "several.ndjson", "ok", 120)
    more = ("--processes", "3", "--connections", "6", "--html", str(page), "--slo", "p99=9s,errors=0%")
    status, result = replay(rpc_stub.url, log, *more)
    assert status == 0
    calls = came(rpc_stub, "several")
    assert sorted(call["user"] for call in calls) == sorted(f"several{n}" for n in range(120))
    assert len({call["peer"] for call in calls}) == 6
    assert (result["processes"], result["machine"]["connections"], result["machine"]["connect_failures"]) == (3, 6, 0)
    assert result["planned"] == result["sent"] == result["answered"] == 120
    assert result["statuses"] == {"OK": 120}
    assert sum(second["statuses"]["OK"] for second in result["seconds_series"]) == 120
    (group,) = result["groups"]
    assert (group["endpoint"], group["placement"], group["status"]) == (f"POST {RECOMMENDATIONS}", "ok", "OK")
    assert result["stages_ms"]["rank"]["count"] == 120
    said = capsys.readouterr().out
    assert "0 not OK" in said and "OK and never answered" in said and "2xx" not in said
    assert "several.ndjson" in page.read_text()
    out = str(log.with_suffix(".json"))
    assert main(["report", out, out]) == 0


def test_each_row_becomes_the_call_that_asks_for_the_same_and_other_rows_are_bad(
    rpc_stub: RpcStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {"Endcap-Timeout-Ms": "9000", "User-Agent": "x"}
    rows = [
        post(0, RECOMMENDATIONS, {"user_id": "each0", "placement": "ok"}, headers=headers),
        post(10_000, "/v1/rank", {"user_id": "each1", "placement": "ok", "item_ids": ["i1"]}),
        post(20_000, "/v1/events", {"events": [{"event_id": "each-e1"}, {"event_id": "each-e2"}]}),
        post(30_000, "/v1/items", {"items": []}),
        post(40_000, RECOMMENDATIONS, {"usr_id": "each2"}),
        post(50_000, RECOMMENDATIONS, {"user_id": "each3", "placement": "ok"}),
    ]
    log = write_log(tmp_path / "each.ndjson", rows)
    status, result = replay(rpc_stub.url, log)
    assert status == 0
    assert [(call["method"], call["user"], call["metadata"]) for call in came(rpc_stub, "each")] == [
        ("RecommendRequest", "each0", {"endcap-timeout-ms": "9000"}), ("RankRequest", "each1", {}),
        ("RecommendRequest", "each3", {}),
    ]  # fmt: skip
    assert ["each-e1", "each-e2"] in [call.get("events") for call in rpc_stub.log()["calls"]]
    assert (result["planned"], result["bad_rows"], result["errors"]) == (4, 2, 0)
    assert result["complaints"] == [
        f"{log}: the request at 30000 us: POST /v1/items cannot be played over gRPC",
        f"{log}: the request at 40000 us: the body cannot be said in a message: Object contains unknown field `usr_id`",
    ]
    assert "unknown field `usr_id`" in " ".join(capsys.readouterr().out.split())
    assert main(["replay", str(log), rpc_stub.url, "--strict"]) == 2
    assert "the request at 30000 us: POST /v1/items" in capsys.readouterr().err


def test_statuses_have_grpcs_names_and_every_other_than_ok_is_an_error(rpc_stub: RpcStub, tmp_path: Path) -> None:
    status, result = replay(rpc_stub.url, steady(tmp_path / "cycle.ndjson", "cycle", 40), "--slo", "errors=0.1%")
    assert status == 1
    assert result["statuses"] == {"NOT_FOUND": 10, "OK": 20, "UNAVAILABLE": 10}
    assert {group["status"]: group["count"] for group in result["groups"]} == result["statuses"]
    assert (result["answered"], result["errors"]) == (40, 20)
    assert result["seconds_series"][0]["statuses"] == result["statuses"]


def test_degraded_answers_are_counted_and_unreadable_ones_told_apart(rpc_stub: RpcStub, tmp_path: Path) -> None:
    result = replay(rpc_stub.url, steady(tmp_path / "degraded.ndjson", "degraded", 40))[1]
    assert (result["degraded"], result["degraded_answers"]) == ({"user_recent": 10}, 10)
    result = replay(rpc_stub.url, steady(tmp_path / "bytes.ndjson", "bytes", 8))[1]
    assert (result["statuses"], result["unreadable"]["answers"]) == ({"OK": 8}, 8)


def test_an_answer_to_events_has_nothing_degraded() -> None:
    assert Answer("OK", "", "/endcap.v1.Recommendations/RecordEvents", b"\xff").degraded() == []


def test_pace_warm_up_and_search_are_those_of_http(rpc_stub: RpcStub, tmp_path: Path) -> None:
    log = steady(tmp_path / "pace.ndjson", "ok", 100, 100.0)
    warm = replay(rpc_stub.url, log, "--speed", "4", "--warmup", "0.125")[1]
    assert (warm["planned"], warm["duration"]) == (50, pytest.approx(0.125))
    assert replay(rpc_stub.url, log, "--rate", "200", "--loop", "--duration", "0.8")[1]["planned"] == 160
    steps = ("--search", "--slo", "p99=9s", "--step-s", "0.3", "--warmup", "0", "--low", "50", "--high", "100")
    status, found = replay(rpc_stub.url, log, *steps, "--processes", "1", "--connections", "2")
    assert (status, found["rate"]) == (0, 100)


def test_a_server_that_dies_is_unavailable_and_what_it_did_not_answer_is_not_called_answered(tmp_path: Path) -> None:
    """A connection that broke and one that is refused have one name in gRPC."""
    with running("tests.load.rpc_stub") as (pid, port):
        killed = False

        def kill(progress: Progress) -> None:
            nonlocal killed
            if progress.due > 50 and not killed:
                killed = True
                os.kill(pid, signal.SIGKILL)

        log = steady(tmp_path / "dies.ndjson", "ok", 400)
        given = Replay(
            log=log, door=door_of(f"grpc://127.0.0.1:{port}"), pace=Pace(1.0), processes=1, warmup=0.0, connections=2,
            grace=1.0,
        )  # fmt: skip
        tally = play(given, kill)
    found = tally.tally.tally
    assert found.statuses.keys() == {"OK"}
    assert found.errors.keys() == {"UNAVAILABLE"}
    assert found.statuses["OK"] + found.errors["UNAVAILABLE"] == 400
    assert found.answered == found.ok == found.statuses["OK"]
    assert found.latency.count == found.ok  # quick failures would flatter it
    assert tally.run.connect_failures > 0


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """A port that hands on to another one, and the connections that have been made to it."""
    taken: list[asyncio.StreamWriter] = []
    copying: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except ConnectionError:
            pass  # broken on purpose
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        there, away = await asyncio.open_connection("127.0.0.1", port)
        copying.update([asyncio.ensure_future(copy(reader, away)), asyncio.ensure_future(copy(there, writer))])

    async with await asyncio.start_server(take, "127.0.0.1", 0) as listener:
        yield listener.sockets[0].getsockname()[1], taken
        for task in copying:
            task.cancel()
        await asyncio.gather(*copying, return_exceptions=True)


async def test_a_broken_connection_fails_what_it_carries_and_the_next_call_gets_a_new_one(rpc_stub: RpcStub) -> None:
    async with proxy(rpc_stub.port) as (port, taken):
        way = Way(door_of(f"grpc://127.0.0.1:{port}"), asked, rpc_stub.log)

        def plan() -> Iterable[Planned[Any]]:
            yield Planned(0.0, asked("hang"))
            yield Planned(0.05, asked("hang"))
            yield Planned(0.1, asked("ok"))
            yield Planned(0.15, asked("ok"))
            taken[-1].transport.abort()  # read ahead, so at 0.15 s
            yield from (Planned(0.3 + at, asked("ok")) for at in constant(100, 0.1))

        outcomes: list[Any] = []
        run = await way.loop(outcomes.append, 1, 2).run(plan())
    ended = {outcome.at: outcome for outcome in outcomes}
    assert [ended[at].error for at in (0.0, 0.05)] == ["UNAVAILABLE"] * 2
    assert all(ended[at].answer is None for at in (0.0, 0.05))
    assert ended[0.1].answer is not None and ended[0.1].answer.ok
    assert all(outcome.error is None for at, outcome in ended.items() if at >= 0.3)
    assert run.connections == 2
    assert len(taken) == 3  # the first only asked whether somebody is there


async def test_a_run_that_ends_leaves_nothing_behind(rpc_stub: RpcStub) -> None:
    await Way(door_of(rpc_stub.url), asked, rpc_stub.log).play("hang", [0.0] * 20, grace=0.1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_processes_are_as_many_as_grpc_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    door = RpcDoor("shop", 8081)
    seen = survey(steady(tmp_path / "a.ndjson", "ok", 5000, 500.0), door)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    rates = [door.per_process * share for share in (0.9, 1.9, 3.5)]
    assert [processes_for(seen, rate / 500, door) for rate in rates] == [1, 2, 4]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("grpcs://shop:8081", "TLS is not spoken over gRPC"),
        ("grpc://shop:8081/v1", "gRPC's methods have no path before them"),
        ("grpc://shop:8081?a=b", "gRPC's methods have no path before them"),
        ("grpc://shop", "expected grpc://host:port"),
        ("grpc://:8081", "expected grpc://host:port"),
        ("grpc://shop:port", "URL 'grpc://shop:port'"),
        ("grpc://me@shop:8081", "credentials"),
        ("grpc://127.0.0.1:1", "cannot connect to 127.0.0.1:1: "),
    ],
)
def test_an_address_that_is_none_exits_2_with_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str, message: str
) -> None:
    assert main(["replay", str(steady(tmp_path / "a.ndjson", "ok", 2)), url]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    refusal = captured.err.splitlines()[-1]
    assert refusal.startswith("load: ") and message in refusal


def test_a_port_of_http_is_told_at_once(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    log = steady(tmp_path / "a.ndjson", "ok", 2)
    assert main(["replay", str(log), f"grpc://127.0.0.1:{stub.port}", "--grace", "60"]) == 2
    assert time.monotonic() - begun < 50
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"load: cannot connect to 127.0.0.1:{stub.port}: no gRPC is spoken there"


def test_without_grpcio_one_line_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "load.rpc.door")
    monkeypatch.delitem(sys.modules, "load.rpc.channels")
    monkeypatch.setitem(sys.modules, "grpc", None)
    assert main(["replay", str(steady(tmp_path / "a.ndjson", "ok", 2)), "grpc://shop:8081"]) == 2
    assert "gRPC needs the packages grpcio and protobuf" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["open", "grpc://shop:8081", "--rate", "1", "--duration", "1", "--users-count", "1"],
        ["diff", "{log}", "grpc://shop:8081", "http://shop:8080"],
        ["diff", "{log}", "http://shop:8080", "grpc://shop:8081"],
    ],
)
def test_the_other_commands_speak_http_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    log = steady(tmp_path / "a.ndjson", "ok", 2)
    assert main([argument.replace("{log}", str(log)) for argument in arguments]) == 2
    assert capsys.readouterr().err == (
        "load: URL 'grpc://shop:8081': HTTP only here; gRPC is for `endcap replay`, as grpc://host:port\n"
    )
