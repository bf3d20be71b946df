"""A traffic log played by Locust, a master and two workers on loopback, against a stub that answers at once."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import orjson

from load.schedule import poisson
from load.traffic_log import Entry

ROOT = Path(__file__).parents[1]
LOCUSTFILE = ROOT / "load" / "locustfile.py"


def main() -> int:
    """Play it and print what Locust, and the stub, counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=300.0, help="requests/s on average [300]")
    parser.add_argument("--duration", type=float, default=20.0, help="seconds [20]")
    arguments = parser.parse_args()
    if importlib.util.find_spec("locust") is None:
        print("bench-locust: Locust is not installed: pip install -c constraints.txt 'endcap[locust]'", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(
        [sys.executable, "-m", "tests.load.stub"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as stub:  # fmt: skip
        try:
            assert stub.stdout is not None
            url = f"http://127.0.0.1:{int(stub.stdout.readline())}"
            log = Path(folder) / "log.ndjson"
            rows = write_log(log, "/ok", arguments.rate, arguments.duration)
            total, said = play(log, url, Path(folder) / "locust", workers=2)
            with urllib.request.urlopen(f"{url}/log") as answer:  # noqa: S310 - our own stub
                bodies = orjson.loads(answer.read())["bodies"]
        finally:
            stub.terminate()
    print("\n".join(line for line in said.splitlines() if "share " in line))
    print(f"{rows} rows, {total['Request Count']} requests, {total['Failure Count']} failures, {total['Requests/s']}/s")
    print(f"latency from the intended time: p50 {total['50%']} ms, p99 {total['99%']} ms, max {total['100%']} ms")
    once = sorted(body["row"] for body in bodies) == list(range(rows))
    print("every row came once" if once else "rows are missing, or came twice")
    return 0 if once else 1


def write_log(path: Path, endpoint: str, rate: float, duration: float) -> int:
    """Write a Poisson schedule whose bodies number their rows; returns how many."""
    times = poisson(rate, duration, seed=1)
    with path.open("wb") as file:
        for row, at in enumerate(times.tolist()):
            body = orjson.dumps({"row": row}).decode()
            entry = Entry(round(at * 1e6), "POST", endpoint, {"Content-Type": "application/json"}, body)
            file.write(orjson.dumps({name: getattr(entry, name) for name in entry.__struct_fields__}) + b"\n")
    return len(times)


def play(log: Path, url: str, results: Path, *, workers: int) -> tuple[dict[str, str], str]:
    """Run a master and its workers to the log's end; returns the totals of Locust's CSV, and what the master said."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    base = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE)]
    master = [
        *base, "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--headless",
        "--expect-workers", str(workers), "-u", str(workers), "-r", str(workers), "-H", url,
        "--traffic-log", str(log), "--csv", str(results),
    ]  # fmt: skip
    worker = [*base, "--worker", "--master-host", "127.0.0.1", "--master-port", port]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen(worker, **quiet) for _ in range(workers)]  # noqa: S603 - our own
    try:
        done = subprocess.run(master, cwd=ROOT, capture_output=True, text=True, timeout=600)  # noqa: S603 - our own
    finally:
        for one in started:
            one.terminate()
        for one in started:
            one.wait(timeout=20)
    with results.with_name(f"{results.name}_stats.csv").open(newline="") as file:
        total = next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")
    return total, done.stderr


if __name__ == "__main__":
    sys.exit(main())
