"""`make bench-jobs`: what shoppers notice of a job of 100,000 users that runs beside them.

The demo shop of `make bench-open`, the service a process of its own. Open-loop load is played in pairs of equal parts,
without a job and while one of so many rows runs, in turns which of them first. Latency counts from the intended times;
the figures are medians of the pairs' ratios, because what else this machine does falls on both.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

from infra.bench_open import user_ids, wait
from service.valkey import free_port

SETTLE_S = 7.0
"""In which the service notices that there are shoppers, and is warm."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("var/bench"))
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of one part")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "service.cli", "demo", "--dir", str(arguments.dir), "--port", str(port)]
    with subprocess.Popen(command, stdout=sys.stderr) as service:  # noqa: S603
        try:
            wait(f"{url}/readyz", service)
            users = arguments.dir / "users.txt"
            users.write_text("\n".join(user_ids(arguments.dir)) + "\n")
            play(url, users, arguments.rate, SETTLE_S)
            ratios = [pair(url, users, arguments, bool(number % 2)) for number in range(arguments.pairs)]
        finally:
            service.send_signal(signal.SIGTERM)
    for name in ("p50", "p90", "p99"):
        found = [one[name] for one in ratios]
        told = ", ".join(f"{one:.2f}" for one in sorted(found))
        print(f"{name} with a job / without: median {median(found):.2f} of {told}" + " (goal 1.10)" * (name == "p99"))
    return 0


def pair(url: str, users: Path, arguments: argparse.Namespace, first: bool) -> dict[str, float]:
    """One part with a job and one without, the former first or last; the ratios of their latencies."""
    parts: dict[bool, dict[str, float]] = {}
    for with_job in (first, not first):
        job = create(url, arguments.rows, users.read_text().split()) if with_job else None
        parts[with_job] = play(url, users, arguments.rate, arguments.duration)
        done = "" if job is None else f"   the job did {end(url, job) / arguments.duration:.0f} rows/s"
        name, one = "beside a job" if with_job else "alone", parts[with_job]
        print(f"{name:13} p50 {one['p50']:6.2f}   p90 {one['p90']:6.2f}   p99 {one['p99']:6.2f} ms{done}", flush=True)
    return {name: parts[True][name] / parts[False][name] for name in ("p50", "p90", "p99")}


def end(url: str, job: str) -> int:
    """Ends the job; how much it had done."""
    found = call(url, "GET", job)
    if found["state"] != "running":
        sys.exit(f"the job was {found['state']} before the part ended: more --rows, or a shorter --duration")
    call(url, "DELETE", job)
    while call(url, "GET", job)["ended_at"] is None:
        time.sleep(0.1)
    return int(found["done"])


def play(url: str, users: Path, rate: float, seconds: float) -> dict[str, Any]:
    """Open-loop requests from another process; the spread of their latencies in ms."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        load = [
            sys.executable, "-m", "load.cli", "open", f"{url}/v1/recommendations", "--rate", str(rate),
            "--duration", str(seconds), "--users", str(users), "--json", str(out),
        ]  # fmt: skip
        subprocess.run(load, stdout=subprocess.DEVNULL)  # noqa: S603 - its status says whether an SLO is met
        found: dict[str, Any] = json.loads(out.read_bytes())["latency_ms"]
        return found


def create(url: str, rows: int, users: Sequence[str]) -> str:
    """A job of so many rows, once it runs."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=300)
    lines = (json.dumps({"user_id": user}).encode() + b"\n" for user in islice(cycle(users), rows))
    headers = {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
    connection.request("POST", "/v1/jobs", grouped(lines), headers, encode_chunked=True)
    job = str(json.loads(connection.getresponse().read())["id"])
    connection.close()
    while call(url, "GET", job)["state"] != "running":
        time.sleep(0.05)
    return job


def grouped(lines: Iterator[bytes]) -> Iterator[bytes]:
    while some := b"".join(islice(lines, 1000)):
        yield some


def call(url: str, method: str, job: str) -> dict[str, Any]:
    request = urllib.request.Request(f"{url}/v1/jobs/{job}", method=method)  # noqa: S310 - our own address
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        found: dict[str, Any] = json.loads(answer.read())
    return found


if __name__ == "__main__":
    sys.exit(main())
