"""Workers behind one port: replaced when they die, drained on a signal, gone with their supervisor."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import orjson
import pytest

from service.reserved import reserve
from service.workers_metrics import Family, MetricsFolder

BODY = orjson.dumps({"user_id": "u1", "count": 3})


def post(url: str, body: bytes = BODY) -> int:
    """The status of one request on a connection of its own; 0 where none came."""
    request = urllib.request.Request(f"{url}/v1/recommendations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(what: object, within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


class Served:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def workers(self) -> list[int]:
        (zygote,) = children(self.process.pid)
        return children(zygote)


def until_ready(url: str) -> None:
    """All workers are: one that is still loading would refuse what comes to it."""
    until(lambda: all(post(url) == 200 for _ in range(30)))


@contextmanager
def serving(deployment: Path) -> Iterator[Served]:
    """`endcap serve --workers 2` on a free port, ready."""
    command = [sys.executable, "-m", "service.cli", "serve", "--dir", str(deployment), "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "answers at" in line)
        (url,) = re.findall(r"http://[\d.:]+", line)[:1]
        until_ready(url)
        try:
            yield Served(process, url)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(20)


@pytest.fixture
def served(deployment: Path) -> Iterator[Served]:
    """One to be ended by the test."""
    with serving(deployment) as one:
        yield one


@pytest.fixture(scope="module")
def shared(deployment: Path) -> Iterator[Served]:
    with serving(deployment) as one:
        yield one


@pytest.fixture
def lasting(shared: Served) -> Served:
    """One that the test leaves running, perhaps with other workers than before."""
    until_ready(shared.url)
    return shared


def test_a_killed_worker_is_replaced_and_the_other_answers_meanwhile(lasting: Served) -> None:
    before = lasting.workers()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(lasting.workers()) == 2 and before[0] not in lasting.workers())
    assert before[1] in lasting.workers()
    until(lambda: all(post(lasting.url) == 200 for _ in range(20)))


def counted(url: str) -> float:
    """The requests for recommendations that were answered, as one scrape says."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
        text = response.read().decode()
    lines = [line for line in text.splitlines() if line.startswith("endcap_requests_total{") and "/v1/rec" in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'status="200"' in line)


def test_a_scrape_of_any_worker_counts_the_requests_of_all_also_of_the_dead(lasting: Served) -> None:
    time.sleep(1.2)  # until both have said what they had counted before
    before = counted(lasting.url)
    for _ in range(40):
        assert post(lasting.url) == 200
    until(lambda: all(counted(lasting.url) == before + 40 for _ in range(6)))
    time.sleep(1.2)  # what it has counted since it last said so dies with a killed worker
    dead = lasting.workers()[0]
    os.kill(dead, signal.SIGKILL)
    until(lambda: len(lasting.workers()) == 2 and dead not in lasting.workers())
    until(lambda: post(lasting.url) == 200)
    until(lambda: all(counted(lasting.url) >= before + 40 for _ in range(6)))


def asked(url: str, path: str) -> str:
    with urllib.request.urlopen(url + path, timeout=10) as response:
        return str(response.read().decode())


def test_each_worker_tells_of_its_own_engine_and_a_scrape_of_the_mean_curve(lasting: Served) -> None:
    """Two workers that have learned the same together have no curve of twice the seconds."""
    reports = [orjson.loads(asked(lasting.url, "/v1/engine")) for _ in range(12)]
    assert {one["pid"] for one in reports} <= set(lasting.workers()) and {one["workers"] for one in reports} == {2}
    time.sleep(1.2)  # until both have said what they know
    lines = asked(lasting.url, "/metrics").splitlines()
    (size,) = [line for line in lines if line.startswith('endcap_engine_curve_size{kind="worth_having"}')]
    (took,) = [line for line in lines if line.startswith('endcap_engine_curve_seconds{size="32"}')]
    known = [one["batches"] for one in reports]
    assert float(size.rpartition(" ")[2]) <= max(one["worth_having"] for one in known)
    assert float(took.rpartition(" ")[2]) < 1.5 * max(one["curve"][-1]["seconds"] for one in known)


def looked_at(url: str) -> int:
    return sum(int(one["answers"]) for one in orjson.loads(asked(url, "/v1/skew"))["versions"])


def test_skew_is_of_the_answers_of_both_workers_whoever_is_asked(lasting: Served) -> None:
    time.sleep(1.2)  # until both have said what they had counted before
    before = looked_at(lasting.url)
    for _ in range(12):
        assert post(lasting.url) == 200
    until(lambda: all(looked_at(lasting.url) == before + 12 for _ in range(6)))
    dead = lasting.workers()[0]
    os.kill(dead, signal.SIGKILL)
    until(lambda: len(lasting.workers()) == 2 and dead not in lasting.workers())
    until(lambda: all(looked_at(lasting.url) < before + 12 for _ in range(6)))


def test_an_answer_of_one_worker_can_be_asked_of_the_other(lasting: Served) -> None:
    """At once, too: whoever is asked waits until the other has written it."""
    host = lasting.url.removeprefix("http://")
    apart: dict[int, HTTPConnection] = {}  # one that stays to each worker
    with ExitStack() as all_of_them:
        while len(apart) < 2:
            connection = all_of_them.enter_context(closing(HTTPConnection(host, timeout=20)))
            connection.request("GET", "/v1/engine")
            apart[orjson.loads(connection.getresponse().read())["pid"]] = connection
        one, other = apart.values()
        one.request("POST", "/v1/recommendations", BODY, {"Content-Type": "application/json"})
        answer = orjson.loads(one.getresponse().read())
        for connection in (other, one):
            connection.request("GET", f"/v1/recommendations/{answer['recommendation_id']}")
            found = orjson.loads(connection.getresponse().read())
            assert found["identical"] and len(found["now"]["items"]) == 3


def test_sigterm_under_load_answers_what_it_has_taken_and_leaves_no_process(served: Served) -> None:
    """Keep-alive clients see whole answers until the end; nobody sees half of one."""
    workers = served.workers()
    statuses: list[int] = []

    def ask() -> None:
        while True:
            status = post(served.url)
            statuses.append(status)
            if status != 200:
                return

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(ask) for _ in range(4)]
        time.sleep(1.0)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
        for one in running:
            one.result()
    assert statuses.count(200) >= 4
    assert set(statuses) <= {200, 503, 0}  # refused at the door, never broken off
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_workers_do_not_outlive_a_killed_supervisor(served: Served) -> None:
    workers = served.workers()
    served.process.kill()
    served.process.wait(5)
    until(lambda: not [pid for pid in workers if Path(f"/proc/{pid}").exists()])


def test_a_port_that_another_program_has_is_not_shared() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            reserve("127.0.0.1", other.getsockname()[1])
    held = reserve("127.0.0.1", 0)
    assert held.getsockname()[1] > 0
    held.close()


def test_of_a_worker_that_died_the_counters_stay_and_the_gauges_go(tmp_path: Path) -> None:
    folder = MetricsFolder(tmp_path)
    counter = Family("n", "", "counter", [("n_total", (("a", "x"),), 3.0)])
    gauge = Family("g", "", "gauge", [("g", (), 7.0)])
    for pid in (1, 2):
        folder.write([counter, gauge], str(pid))
        folder.end(pid)
    (ended,) = folder.others()
    assert ended == [Family("n", "", "counter", [("n_total", (("a", "x"),), 6.0)])]


def test_a_loading_that_fails_is_one_line_and_leaves_no_process(deployment: Path, tmp_path: Path) -> None:
    """What the child that loads says is what the command says, and so is its exit code."""
    here = tmp_path / "here"
    here.mkdir()
    text = (deployment / "endcap.toml").read_text()
    (here / "endcap.toml").write_text(text)
    (here / "feature_repo").symlink_to(deployment / "feature_repo")
    command = [sys.executable, "-m", "service.cli", "serve", "--dir", str(here), "--port", "0", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "holds no version" in done.stderr and "Traceback" not in done.stderr


def test_the_command_ends_with_its_supervisor_and_so_do_the_workers(served: Served) -> None:
    workers = served.workers()
    (zygote,) = children(served.process.pid)
    os.kill(zygote, signal.SIGKILL)
    assert served.process.wait(20) == 128 + signal.SIGKILL
    until(lambda: not any(Path(f"/proc/{one}/cmdline").exists() for one in workers))


def test_a_stop_while_it_loads_ends_it(deployment: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--dir", str(deployment), "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        until(lambda: children(process.pid))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
