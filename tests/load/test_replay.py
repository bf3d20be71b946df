"""Whole replays: real processes against a real server."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from load import search
from load.cli import main
from load.doors import door_of
from load.errors import LoadError
from load.replay import Progress, Replay, play, processes_for, usable_cores
from load.replay_plan import Pace, survey
from tests.load.conftest import Stub
from tests.load.logs import post, steady, write_log
from tests.load.play import closed_loop


def replay(stub: Stub, log: Path, *arguments: str, path: str = "") -> tuple[int, dict[str, Any]]:
    """Exit status and result."""
    out = log.with_suffix(".json")
    status = main(["replay", str(log), stub.url(path), "--json", str(out), *arguments])
    return status, orjson.loads(out.read_bytes())


def bodies(stub: Stub, field: str) -> list[Any]:
    """The bodies with a field that `/ok` was sent so far, in order."""
    return [body for body in stub.log()["bodies"] if field in body]


def options(stub: Stub, log: Path, **fields: Any) -> Replay:
    given = {"pace": Pace(1.0), "processes": 1, "warmup": 0.0, "connections": 8, "grace": 1.0}
    return Replay(log=log, door=door_of(stub.url("")), **(given | fields))


def test_a_page_of_the_replay_needs_nothing_else(stub: Stub, tmp_path: Path) -> None:
    page = tmp_path / "replay.html"
    assert replay(stub, steady(tmp_path / "a.ndjson", 100, 20), "--html", str(page))[0] == 0
    text = page.read_text()
    assert text.startswith("<!doctype html>") and "a.ndjson" in text
    assert not [word for word in ("http-equiv=refresh", "<script src", "<link", "url(", "@import") if word in text]


def test_several_processes_send_each_request_of_the_log_once(stub: Stub, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.ndjson", [post(n * 2000, body={"several": n}) for n in range(200)])
    status, result = replay(stub, log, "--processes", "3")
    assert status == 0
    assert sorted(body["several"] for body in bodies(stub, "several")) == list(range(200))
    assert result["processes"] == 3
    assert result["planned"] == result["sent"] == result["answered"] == 200
    assert result["statuses"] == {"200": 200}
    assert sum(second["intended"] for second in result["seconds_series"]) == 200
    assert sum(second["statuses"]["200"] for second in result["seconds_series"]) == 200
    assert sum(group["count"] for group in result["groups"]) == 200
    assert result["stages_ms"]["rank"]["count"] == 200
    assert "aiohttp" in result["versions"]["server"]


def test_a_replay_sends_in_the_order_of_the_log_and_passes_over_bad_rows(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [post(n * 10_000, body={"ordered": n}) for n in range(20)]
    log = write_log(tmp_path / "a.ndjson", [*rows[:10], "nonsense", post(100_000, method="HEAD"), *rows[10:]])
    status, result = replay(stub, log)
    assert status == 0
    assert [body["ordered"] for body in bodies(stub, "ordered")] == list(range(20))
    assert (result["planned"], result["bad_rows"]) == (20, 2)
    assert "row 11" in capsys.readouterr().out
    assert main(["replay", str(log), stub.url(""), "--strict"]) == 2
    assert "row 11" in capsys.readouterr().err


def test_degraded_answers_are_counted_by_reason_and_bounded(stub: Stub, tmp_path: Path) -> None:
    log = steady(tmp_path / "a.ndjson", 200, 40, "/degraded")
    status, result = replay(stub, log, "--slo", "degraded=20%")
    assert status == 1
    assert result["degraded"] == {"user_recent": 10}
    assert result["degraded_answers"] == sum(second["degraded"] for second in result["seconds_series"]) == 10


def test_a_missed_slo_exits_1_and_a_met_one_0(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [post(n * 5000, "/cycle" if n % 2 else "/ok") for n in range(80)]
    log = write_log(tmp_path / "a.ndjson", rows)
    status, result = replay(stub, log, "--slo", "p99=9s,errors=0.1%")
    assert status == 1
    assert [(bound["name"], bound["met"]) for bound in result["slo"]] == [("p99", True), ("errors", False)]
    assert result["slo"][1]["value"] == pytest.approx(100 * result["errors"] / 80)
    assert {group["endpoint"] for group in result["groups"]} == {"POST /cycle", "POST /ok"}
    assert result["statuses"] == {"200": 60, "404": 10, "503": 10}
    assert "missed errors=0.1%" in capsys.readouterr().out
    assert replay(stub, log, "--slo", "p99=9s,errors=100%")[0] == 0


def test_the_prefix_of_the_address_and_the_method_of_a_row_are_kept(stub: Stub, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.ndjson", [post(0, "/named"), post(1000, "/other")])
    assert replay(stub, log, path="/pause/")[1]["statuses"] == {"200": 2}
    get = {"at_us": 0, "method": "GET", "path": "/log", "headers": {}, "body": None}
    assert replay(stub, write_log(tmp_path / "b.ndjson", [get]))[1]["statuses"] == {"200": 1}


def test_the_pace_of_the_command_line_is_that_of_the_run(stub: Stub, tmp_path: Path) -> None:
    log = steady(tmp_path / "a.ndjson", 100, 100)
    assert replay(stub, log, "--speed", "4")[1]["duration"] == pytest.approx(0.25)
    fast = replay(stub, log, "--rate", "400")[1]
    assert (fast["rate"], fast["speed"], fast["planned"]) == (400, pytest.approx(4), 100)
    assert replay(stub, log, "--rate", "200", "--loop", "--duration", "0.8")[1]["planned"] == 160
    warm = replay(stub, log, "--speed", "4", "--warmup", "0.125")[1]
    assert (warm["planned"], warm["duration"]) == (50, pytest.approx(0.125))


def test_a_pause_of_the_server_shows_in_a_replay_and_hides_in_a_closed_loop(stub: Stub, tmp_path: Path) -> None:
    """A 100 ms pause meets every request due in it; a closed loop stops asking, and so counts it once in 450."""
    _, result = replay(stub, steady(tmp_path / "a.ndjson", 300, 450, "/pause/replayed"))
    closed = np.array(asyncio.run(closed_loop(stub.url("/pause/closed-again"), 300, 450)))
    closed_p99 = float(np.percentile(closed, 99, method="inverted_cdf"))
    assert closed.max() > 0.08
    assert closed_p99 < 0.08
    assert result["latency_ms"]["max"] > 80
    assert result["latency_ms"]["p99"] > closed_p99 * 1e3
    above = 450 * (100 - next(percent for percent, ms in result["percentiles"] if ms > 50)) / 100
    assert above > 3 * (closed > 0.05).sum()
    assert result["seconds_series"][0]["max_ms"] > 80  # request 200 of 300 a second was due in it


def test_what_never_comes_back_is_an_error_that_waited(stub: Stub, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.ndjson", [post(n * 10_000, "/hang") for n in range(10)])
    status, result = replay(stub, log, "--grace", "0.3", "--connections", "4", "--slo", "p99=200ms")
    assert status == 1
    assert result["statuses"] == {"unanswered": 4, "unsent": 6}
    assert result["latency_ms"]["max"] >= 299
    assert (result["sent"], result["answered"], result["errors"]) == (4, 0, 10)


def test_a_client_that_was_late_says_so_instead_of_blaming_the_server(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """5,000 requests at one moment: nobody sends the last of them within a millisecond."""
    log = write_log(tmp_path / "a.ndjson", [post(0) for _ in range(5000)])
    client = replay(stub, log, "--processes", "1", "--grace", "20")[1]["client"]
    assert client["kept"] is False
    assert client["late"] > 2500
    assert "the client was late" in client["verdict"]
    assert "the client was late" in capsys.readouterr().out


def test_a_search_tries_rates_until_the_slo_is_missed(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two connections at 20 ms a request carry at most 100 requests/s. How it closes in is tested in test_search."""
    monkeypatch.setattr(search, "CLOSE", 2.0)
    log = steady(tmp_path / "a.ndjson", 40, 400, "/slow")
    steps = ["--search", "--slo", "errors=5%", "--connections", "2", "--grace", "0.1", "--processes", "1"]
    steps += ["--step-s", "0.5", "--warmup", "0.1", "--low", "40", "--high", "320"]
    status, found = replay(stub, log, *steps)
    assert status == 0
    assert 40 <= found["rate"] <= 160
    assert {step["verdict"] for step in found["steps"]} >= {"met"}
    assert found["ceiling"] > found["rate"]
    assert "requests/s" in capsys.readouterr().out.splitlines()[-1]
    assert replay(stub, log, *steps[:-4], "--low", "640")[0] == 1


def test_a_process_that_dies_ends_the_run_in_one_line(stub: Stub, tmp_path: Path) -> None:
    log = steady(tmp_path / "a.ndjson", 100, 3000)

    def kill(progress: Progress) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(LoadError, match="ended before its time"):
        play(options(stub, log), kill)
    assert not multiprocessing.active_children()


def test_an_interruption_leaves_no_process_behind(stub: Stub, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(options(stub, steady(tmp_path / "a.ndjson", 100, 3000), processes=2), interrupt)
    assert not multiprocessing.active_children()


def test_processes_are_as_many_as_the_busiest_second_needs_and_leave_a_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = door_of("http://shop")
    seen = survey(steady(tmp_path / "a.ndjson", 500, 5000), door)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert usable_cores() == 8
    assert [processes_for(seen, speed, door) for speed in (0.1, 1.0, 5.9, 1000.0)] == [1, 1, 3, 5]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    assert processes_for(seen, 5.9, door) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert processes_for(seen, 5.9, door) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.ndjson", "http://x"], "none.ndjson: No such file"),
        (["{log}", "http://127.0.0.1:1"], "cannot connect to 127.0.0.1:1"),
        (["{log}", "http://x/?a=b"], "the query is each request's own"),
        (["{log}", "x"], "URL 'x'"),
        (["{log}", "http://x", "--loop"], "--loop needs --duration"),
        (["{log}", "http://x", "--warmup", "9"], "nothing of the log is left"),
        (["{log}", "http://x", "--rate", "1", "--speed", "2"], "not allowed with"),
        (["{log}", "http://x", "--search"], "--search needs --slo"),
        (["{log}", "http://x", "--search", "--slo", "p99=1s", "--rate", "3"], "--rate does not go with --search"),
        (["{log}", "http://x", "--search", "--slo", "p99=1s", "--low", "3", "--high", "2"], "above --high"),
        (["{log}", "http://x", "--low", "3"], "belong to --search"),
        (["{log}", "http://x", "--json", "no/such/out.json"], "no such directory"),
        (["{log}", "http://x", "--html", "no/such/out.html"], "--html no/such/out.html: no such directory"),
        (["{log}", "http://x", "--search", "--slo", "p99=1s", "--html", "a.html"], "--html does not go with --search"),
        (["{log}", "http://x", "--processes", "0"], "whole number from 1"),
    ],
)
def test_what_cannot_be_replayed_exits_2_with_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    log = steady(tmp_path / "a.ndjson", 100, 10)
    assert main(["replay", *(argument.replace("{log}", str(log)) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    refusal = captured.err.splitlines()[-1]
    assert refusal.startswith("load: ")
    assert message in refusal
