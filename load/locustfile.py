"""A traffic log played by Locust: `locust -f load/locustfile.py --traffic-log LOG -H URL` (docs/load-reports.md).

The master tells each worker which share of the log is its own and when to begin; from then on a worker sends at the
intended times whatever the server does, a greenlet a request, and reports latency from the intended time. Locust's
users are not used: `-u` has no effect on the load. Locust is an optional extra, and no other module imports it.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import gevent
from geventhttpclient import HTTPClient
from locust import User, events
from locust.exception import ResponseError
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from load.errors import LoadError
from load.histogram import Durations
from load.http1 import UNPLAYABLE, parse_url
from load.shares import share, typed
from load.traffic_log import Entry, TrafficLog

PLAN, DONE = "endcap_plan", "endcap_done"
# Between the master's word and the first request: messages arrive, logs are opened.
HEAD_START_S = 2.0
# For the last answers, and for a connection or an answer to come at all.
GRACE_S = 10.0
CONNECTIONS = 512
_log = logging.getLogger("endcap")


def _idle(user: Any) -> None:
    gevent.sleep(3600)


class Player(User):  # type: ignore[misc]
    """Locust runs nothing without a user; this one leaves all to the pacer."""

    tasks = (_idle,)


class Pacer:
    """Plays one share of the log on this worker."""

    def __init__(self, environment: Any, plan: dict[str, Any]) -> None:
        self._environment, self._plan = environment, plan
        self._prefix = parse_url(plan["host"]).path.rstrip("/")
        self._client = HTTPClient.from_url(
            plan["host"], concurrency=CONNECTIONS, connection_timeout=GRACE_S, network_timeout=GRACE_S
        )
        self._lateness = Durations()

    def play(self) -> dict[str, Any]:
        """Send every request of the share at its time and wait for the answers; returns what the master is told."""
        log = TrafficLog(Path(self._plan["log"]))
        # The master's clock says when; from here on the monotonic one counts.
        start = time.monotonic() + self._plan["start"] - time.time()
        under_way, unplayable = set(), 0
        for at, entry in share(log, self._plan["index"], self._plan["of"], self._plan["speed"]):
            if entry.method in UNPLAYABLE:
                unplayable += 1
                continue
            due = start + at
            gevent.sleep(max(0.0, due - time.monotonic()))
            self._lateness.record(max(0.0, time.monotonic() - due))
            one = gevent.spawn(self._send, entry, due)
            under_way.add(one)
            one.rawlink(under_way.discard)
        gevent.joinall(list(under_way), timeout=GRACE_S)
        p99 = self._lateness.percentile(99)
        unanswered = len(under_way)
        gevent.killall(list(under_way))
        lateness_ms = None if p99 is None else round(1e3 * p99, 3)
        return {
            "index": self._plan["index"], "sent": self._lateness.count, "unanswered": unanswered,
            "lateness_p99_ms": lateness_ms, "bad_rows": log.bad, "unplayable": unplayable,
        }  # fmt: skip

    def _send(self, entry: Entry, due: float) -> None:
        """One request, as `endcap replay` sends it. Whatever comes of it, its latency counts from when it was due."""
        error: BaseException | None = None
        length = 0
        try:
            path, body = self._prefix + entry.path, (entry.body or "").encode()
            response = self._client.request(entry.method, path, body, typed(entry))
            length = len(response.read())
            if not 200 <= response.status_code < 300:
                error = ResponseError(f"HTTP {response.status_code}")
        except gevent.GreenletExit as killed:
            error = killed  # given up: no answer within the grace
        except Exception as broken:  # noqa: BLE001 - whatever fails is the request's outcome, as Locust's own clients have it
            error = broken
        self._environment.events.request.fire(
            request_type=entry.method,
            name=entry.path.partition("?")[0],
            response_time=1e3 * (time.monotonic() - due),
            response_length=length,
            exception=error,
            context={},
        )


def _add_arguments(parser: Any) -> None:
    parser.add_argument(
        "--traffic-log", env_var="ENDCAP_TRAFFIC_LOG", default="", help="the log; a path on each worker"
    )
    parser.add_argument("--speed", type=float, env_var="ENDCAP_SPEED", default=1.0, help="2 plays it twice as fast")


def _prepare(environment: Any, **_: Any) -> None:
    """On the master (or alone): refuse what cannot be played. On all: listen for what the others say."""
    runner, options = environment.runner, environment.parsed_options
    if isinstance(runner, WorkerRunner):
        runner.register_message(PLAN, _on_plan)
        return
    try:
        if not options.traffic_log:
            raise LoadError("--traffic-log: expected the path of a traffic log")
        if not 0 < options.speed < float("inf"):
            raise LoadError(f"--speed: {options.speed} is not a number above zero")
        TrafficLog(Path(options.traffic_log))
        if environment.host:  # without one Locust itself refuses
            parse_url(environment.host)
    except LoadError as error:
        sys.stderr.write(f"load: {error}\n")
        sys.exit(2)
    if isinstance(runner, MasterRunner):
        runner.register_message(DONE, _on_done)


def _begin(environment: Any, **_: Any) -> None:
    """The master deals: a share to each worker that is there now. Alone, all of it is played here."""
    runner, options = environment.runner, environment.parsed_options
    if isinstance(runner, WorkerRunner):
        return
    plan = {
        "log": options.traffic_log, "speed": options.speed, "host": environment.host,
        "start": time.time() + HEAD_START_S,
    }  # fmt: skip
    if isinstance(runner, LocalRunner):
        gevent.spawn(_play_alone, environment, plan | {"index": 0, "of": 1})
        return
    workers = sorted(runner.clients.keys())
    environment.endcap_awaited = set(range(len(workers)))
    for index, worker in enumerate(workers):
        runner.send_message(PLAN, plan | {"index": index, "of": len(workers)}, worker)


def _on_plan(environment: Any, msg: Any, **_: Any) -> None:
    environment.endcap_pacer = gevent.spawn(_play_share, environment, msg.data)


def _play_share(environment: Any, plan: dict[str, Any]) -> None:
    try:
        told = Pacer(environment, plan).play()
    except LoadError as error:
        told = {"index": plan["index"], "failed": str(error)}
    environment.runner.send_message(DONE, told)


def _play_alone(environment: Any, plan: dict[str, Any]) -> None:
    _report(Pacer(environment, plan).play())
    _finish(environment)


def _on_done(environment: Any, msg: Any, **_: Any) -> None:
    _report(msg.data)
    if "failed" in msg.data:
        environment.process_exit_code = 2
    environment.endcap_awaited.discard(msg.data["index"])
    if not environment.endcap_awaited:
        gevent.spawn(_finish, environment)


def _report(told: dict[str, Any]) -> None:
    _log.info(
        "share %d: %s", told["index"], ", ".join(f"{name} {value}" for name, value in told.items() if name != "index")
    )


def _finish(environment: Any) -> None:
    """The log is played: end the run; without a page to look at, end the process too."""
    if environment.parsed_options.headless:
        environment.runner.quit()
    else:
        environment.runner.stop()


def _stop(environment: Any, **_: Any) -> None:
    pacer = getattr(environment, "endcap_pacer", None)
    if pacer is not None:
        pacer.kill(block=False)


events.init_command_line_parser.add_listener(_add_arguments)
events.init.add_listener(_prepare)
events.test_start.add_listener(_begin)
events.test_stop.add_listener(_stop)
