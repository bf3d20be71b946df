"""A log dealt out among Locust's workers. What needs Locust runs it in processes of its own: it patches the sockets."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import orjson
import pytest

from infra.bench_locust import LOCUSTFILE, ROOT, play, write_log
from load.shares import share, typed
from load.traffic_log import Entry
from tests.load.conftest import Stub

needs_locust = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None, reason="locust is not installed (the extra endcap[locust])"
)


@pytest.mark.parametrize("of", [1, 2, 3, 7, 20])
def test_shares_are_the_whole_log_each_request_once_at_its_time(of: int) -> None:
    log = [Entry(5_000_000 + 100_000 * row, "POST", f"/{row}") for row in range(11)]
    dealt = sorted((at, entry.path) for index in range(of) for at, entry in share(log, index, of, 1.0))
    assert [at for at, _ in dealt] == pytest.approx([row / 10 for row in range(11)])
    assert [path for _, path in dealt] == [f"/{row}" for row in range(11)]
    assert [entry.path for _, entry in share(log, 1, 3, 1.0)] == ["/1", "/4", "/7", "/10"]


def test_speed_2_halves_the_times_and_an_empty_log_has_no_shares() -> None:
    log = [Entry(0, "GET", "/"), Entry(3_000_000, "GET", "/")]
    assert [at for at, _ in share(log, 0, 1, 2.0)] == [0.0, 1.5]
    assert list(share([], 0, 1, 1.0)) == []


def test_a_body_without_a_type_is_sent_as_json_and_no_body_has_none() -> None:
    said = {"content-type": "text/csv"}
    assert typed(Entry(0, "POST", "/", {"X": "y"}, "{}")) == {"X": "y", "Content-Type": "application/json"}
    assert typed(Entry(0, "POST", "/", said, "a,b")) == said
    assert typed(Entry(0, "GET", "/")) == {}


def test_nothing_else_imports_locust_or_what_comes_with_it() -> None:
    for room in ("service", "features", "ranking", "load", "infra"):
        for path in (ROOT / room).rglob("*.py"):
            if path != LOCUSTFILE:
                assert not re.search(
                    r"^\s*(?:from|import) (?:locust|gevent|load\.locustfile)", path.read_text(), re.M
                ), path


@needs_locust
def test_two_workers_send_every_request_of_the_log_once(tmp_path: Path) -> None:
    """Against a stub of its own, whose log says what came."""
    with subprocess.Popen([sys.executable, "-m", "tests.load.stub"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        stub = Stub(process.pid, int(process.stdout.readline()))
        rows = write_log(tmp_path / "log.ndjson", "/ok", 100, 2)
        total, said = play(tmp_path / "log.ndjson", stub.url(""), tmp_path / "out", workers=2)
        with urllib.request.urlopen(stub.url("/log")) as answer:
            bodies = orjson.loads(answer.read())["bodies"]
        process.terminate()
    assert sorted(body["row"] for body in bodies) == list(range(rows))
    assert (total["Request Count"], total["Failure Count"]) == (str(rows), "0")
    assert "share 0: sent" in said
    assert "share 1: sent" in said


@needs_locust
def test_latency_counts_from_the_intended_time_so_a_pause_is_told_by_all_who_waited(tmp_path: Path) -> None:
    """The stub stops for 100 ms at its 200th request: at 400 requests/s some 40 fall due meanwhile, 10 % of the log.

    The address has a path, which goes before the log's: elsewhere the stub would answer 404.
    """
    with subprocess.Popen([sys.executable, "-m", "tests.load.stub"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/pause/"
        write_log(tmp_path / "log.ndjson", "/locust", 400, 1)
        total, _ = play(tmp_path / "log.ndjson", url, tmp_path / "out", workers=2)
        process.terminate()
    assert (total["Failure Count"], float(total["95%"]) >= 40) == ("0", True)


@needs_locust
def test_what_cannot_be_played_is_refused_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "-H", "http://127.0.0.1:1"]
    log = tmp_path / "log.ndjson"
    write_log(log, "/", 10, 1)
    for given, said in (
        ([], "load: --traffic-log: expected"),
        (["--traffic-log", "no.ndjson"], "load: no.ndjson: No such file"),
        (["--traffic-log", str(log), "-H", "grpc://shop:1"], "load: URL 'grpc://shop:1': HTTP only"),
    ):
        done = subprocess.run([*command, *given], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert said in done.stderr
