"""`make bench-overload`: what becomes of a service that is asked for more than it can do, on this machine.

The demo shop of `make bench-open` with a placement of many candidates, so that the client keeps ahead of the service:
the service on one core, the client on another. First its capacity, by connections that each ask again at once; then,
open loop, twice that; the same with every second request of low priority; and a spike of ten times the load.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
import uvloop

from infra.bench_open import user_ids, wait
from load.client import OpenLoop
from load.http1 import Target, encode_post
from load.outcome import Outcome, Planned
from load.schedule import poisson
from load.traffic import zipf
from service.deployment import Deployment
from service.valkey import free_port

HEAVY = """
[placements.heavy]         # of make bench-overload
sources = { personal = 1500, covisit = 300, popular = 500 }

[placements.later]         # the same, of low priority
sources = { personal = 1500, covisit = 300, popular = 500 }
priority = "bulk"
"""
DEADLINE_S, GRACE_S = 0.050, 0.005


@dataclass
class Seen:
    """What came of requests: (when due, latency, status, degraded) each, in seconds."""

    rows: list[tuple[float, float, int, tuple[str, ...]]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    late_s: list[float] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.late_s.append(outcome.lateness)
        if outcome.answer is None:
            self.errors[outcome.error or ""] += 1
            return
        status = outcome.answer.status
        degraded = tuple(orjson.loads(outcome.answer.body)["degraded"]) if status == 200 else ()
        self.rows.append((outcome.at, outcome.latency, status, degraded))

    def within(self, start: float, end: float) -> Seen:
        return Seen([row for row in self.rows if start <= row[0] < end], self.errors, self.late_s)

    def good(self) -> int:
        """Answers in time."""
        return sum(status == 200 and took <= DEADLINE_S + GRACE_S for _, took, status, _ in self.rows)

    def quantile(self, status: int, q: float) -> float:
        took = [took for _, took, its, _ in self.rows if its == status]
        return float(np.quantile(took, q)) * 1e3 if took else float("nan")

    def degraded(self) -> str:
        reasons = Counter(reason for *_, degraded in self.rows for reason in degraded)
        answers = max(sum(status == 200 for _, _, status, _ in self.rows), 1)
        return ", ".join(f"{reason} {count / answers:.0%}" for reason, count in reasons.most_common()) or "nothing"

    def line(self, seconds: float) -> str:
        statuses = Counter(status for _, _, status, _ in self.rows)
        return (
            f"{self.good() / seconds:.0f} answers/s in time; answers p50 {self.quantile(200, 0.5):.1f} ms, p99 "
            f"{self.quantile(200, 0.99):.1f}, max {self.quantile(200, 1):.1f}; "
            f"refused {statuses[503] / max(len(self.rows), 1):.0%}, in p50 {self.quantile(503, 0.5):.1f} ms, p99 "
            f"{self.quantile(503, 0.99):.1f}; 504 {statuses[504]}, other {dict(self.errors) or 'none'}; "
            f"given up: {self.degraded()}; client late p99 {np.quantile(self.late_s, 0.99) * 1e3:.1f} ms"
        )


class Bench:
    def __init__(self, port: int, users: Sequence[str]) -> None:
        self.target, self.users = Target("127.0.0.1", port, False, "/v1/recommendations"), users
        self.seed = 0

    def payload(self, user: int, placement: str, timeout_ms: float | None = None) -> bytes:
        body = {"user_id": self.users[user], "placement": placement, "count": 20}
        encoded = encode_post(self.target, orjson.dumps(body))
        if timeout_ms is None:
            return encoded
        return encoded.replace(b"\r\n\r\n", b"\r\nEndcap-Timeout-Ms: %g\r\n\r\n" % timeout_ms, 1)

    def plan(
        self,
        parts: Iterable[tuple[float, float]],
        placements: Sequence[str] = ("heavy",),
        timeout_ms: float | None = None,
    ) -> list[Planned]:
        """Poisson arrivals: (rate, seconds) one after the other."""
        planned: list[Planned] = []
        start = 0.0
        for rate, seconds in parts:
            self.seed += 2
            times = poisson(rate, seconds, self.seed) + start
            drawn = zipf(len(self.users), len(times), 1.0, self.seed + 1)
            planned += [
                Planned(at, self.payload(user, placements[i % len(placements)], timeout_ms))
                for i, (at, user) in enumerate(zip(times.tolist(), drawn.tolist(), strict=True))
            ]
            start += seconds
        return planned

    def play(self, planned: list[Planned]) -> Seen:
        seen = Seen()
        gc.collect()
        gc.freeze()
        uvloop.run(OpenLoop(self.target, seen.add, connections=1000, grace=2.0).run(planned))
        gc.unfreeze()
        return seen

    async def closed(self, connections: int, seconds: float) -> tuple[float, Seen]:
        """Answers a second to connections that ask again as soon as they are answered."""
        seen, until = Seen(), time.perf_counter() + seconds

        async def one(number: int) -> None:
            reader, writer = await asyncio.open_connection(self.target.host, self.target.port)
            turn = number
            while time.perf_counter() < until:
                turn = (turn * 7919 + 13) % len(self.users)
                began = time.perf_counter()
                writer.write(self.payload(turn, "heavy"))
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                status = int(head[9:12])
                degraded = tuple(orjson.loads(body)["degraded"]) if status == 200 else ()
                seen.rows.append((began, time.perf_counter() - began, status, degraded))
            writer.close()

        await asyncio.gather(*(one(number) for number in range(connections)))
        return sum(status == 200 for _, _, status, _ in seen.rows) / seconds, seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("var/bench"))
    parser.add_argument("--duration", type=float, default=20.0, help="seconds of each part")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    port, cores = free_port(), sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "service.cli", "demo", "--dir", str(arguments.dir), "--port", str(port)]
    if not Deployment.exists(arguments.dir):
        command = [sys.executable, "-m", "infra.bench_open", "--dir", str(arguments.dir), "--duration", "1"]
        subprocess.check_call(command)  # noqa: S603
        command = [sys.executable, "-m", "service.cli", "demo", "--dir", str(arguments.dir), "--port", str(port)]
    settings = arguments.dir / "endcap.toml"
    if "[placements.heavy]" not in settings.read_text():
        settings.write_text(settings.read_text() + HEAVY)
    os.sched_setaffinity(0, cores[:1])
    with subprocess.Popen(command, stdout=sys.stderr) as service:  # noqa: S603
        os.sched_setaffinity(0, cores[-1:])
        try:
            wait(f"http://127.0.0.1:{port}/readyz", service)
            time.sleep(2)  # the demo's own first answer
            report = run(Bench(port, user_ids(arguments.dir)), arguments.duration)
        finally:
            service.send_signal(signal.SIGTERM)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    return 0


def run(bench: Bench, duration: float) -> dict[str, float]:
    uvloop.run(bench.closed(4, 3.0))
    capacity, seen = uvloop.run(bench.closed(6, duration / 2))
    print(
        f"capacity {capacity:.0f}/s by 6 connections, p99 {seen.quantile(200, 0.99):.1f} ms, "
        f"given up: {seen.degraded()}"
    )
    report = {"capacity": capacity}
    seen = bench.play(bench.plan([(2 * capacity, duration)]))
    report |= {"goodput": seen.good() / duration / capacity, "p99_ms": seen.quantile(200, 0.99)}
    report |= {"refused_p99_ms": seen.quantile(503, 0.99)}
    print(
        f"twice the capacity, {2 * capacity:.0f}/s: {seen.line(duration)}; goodput {report['goodput']:.0%} of capacity"
    )
    bench_priorities(bench, 2 * capacity, duration, report)
    bench_deadlines(bench, 0.5 * capacity, duration / 4)
    calm = 0.5 * capacity
    seen = bench.play(bench.plan([(calm, 5.0), (10 * calm, 2.0), (calm, 6.0)]))
    print(f"before the spike, {calm:.0f}/s: {seen.within(0, 5).line(5)}")
    print(f"10 x for 2 s, {10 * calm:.0f}/s: {seen.within(5, 7).line(2)}")
    print(f"the second after: {seen.within(7, 8).line(1)}")
    print(f"from 2 s after on: {seen.within(9, 13).line(4)}")
    report |= {"before_spike_p99_ms": seen.within(0, 5).quantile(200, 0.99)}
    report |= {"after_spike_p99_ms": seen.within(9, 13).quantile(200, 0.99)}
    return report


def bench_deadlines(bench: Bench, rate: float, duration: float) -> None:
    """What is answered, with what behind it, when there is less and less time; the client's own way there included."""
    for timeout_ms in (20.0, 10.0, 5.0, 3.0, 2.0):
        seen = bench.play(bench.plan([(rate, duration)], timeout_ms=timeout_ms))
        late = [took for _, took, status, _ in seen.rows if status == 200 and took > timeout_ms / 1e3 + GRACE_S]
        statuses = Counter(status for _, _, status, _ in seen.rows)
        print(
            f"a deadline of {timeout_ms:g} ms at {rate:.0f}/s: {statuses[200]} answers, "
            f"p50 {seen.quantile(200, 0.5):.1f} ms, p99 {seen.quantile(200, 0.99):.1f}; "
            f"{len(late)} later than {GRACE_S * 1e3:g} ms after it; "
            f"504 {statuses[504]}, refused {statuses[503]}; given up: {seen.degraded()}"
        )


def bench_priorities(bench: Bench, rate: float, duration: float, report: dict[str, float]) -> None:
    """Half of the load is of each priority, told apart by where in the plan a request is."""
    planned = bench.plan([(rate, duration)], ("heavy", "later"))
    first = {one.at: i % 2 == 0 for i, one in enumerate(planned)}
    seen = bench.play(planned)
    for name, high in (("interactive", True), ("bulk", False)):
        part = Seen([row for row in seen.rows if first[row[0]] == high], seen.errors, seen.late_s)
        share = part.good() / max(sum(value == high for value in first.values()), 1)
        report[f"{name}_answered"] = share
        print(f"{name}, half of {rate:.0f}/s: {share:.1%} answered in time; {part.line(duration)}")


if __name__ == "__main__":
    sys.exit(main())
