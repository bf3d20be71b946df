"""`make bench-open`: open-loop load against a demo shop of its own, on this machine.

Makes the demo in `var/bench` (again only if it is not there), starts the service as a process of its own, plays Poisson
arrivals at a fixed rate to it from a second process, and prints what came of it.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from service.valkey import free_port

READY_S = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("var/bench"))
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--duration", type=float, default=30.0)
    parser.add_argument("--slo", default="p99=20ms,errors=0%")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    port = free_port()
    command = [sys.executable, "-m", "service.cli", "demo", "--dir", str(arguments.dir), "--port", str(port)]
    with subprocess.Popen(command, stdout=sys.stderr) as service:  # noqa: S603
        try:
            wait(f"http://127.0.0.1:{port}/readyz", service)
            time.sleep(2)  # the demo's own first answer
            users = arguments.dir / "users.txt"
            users.write_text("\n".join(user_ids(arguments.dir)) + "\n")
            load = [
                sys.executable, "-m", "load.cli", "open", f"http://127.0.0.1:{port}/v1/recommendations",
                "--rate", str(arguments.rate), "--duration", str(arguments.duration), "--users", str(users),
                "--slo", arguments.slo, "--pid", str(service.pid),
                *(["--json", str(arguments.json)] if arguments.json else []),
            ]  # fmt: skip
            return subprocess.call(load)  # noqa: S603
        finally:
            service.send_signal(signal.SIGTERM)


def wait(url: str, service: subprocess.Popen[bytes]) -> None:
    """Until the service is ready. Exits when it ends before that, or takes too long."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if service.poll() is not None:
            sys.exit(f"the service ended with status {service.returncode} before it was ready")
        try:
            with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own address
                json.loads(response.read())
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit(f"not ready after {READY_S:g} s")


def user_ids(directory: Path) -> list[str]:
    import pyarrow.parquet as pq

    ids: list[str] = pq.read_table(directory / "data" / "users.parquet")["user_id"].to_pylist()
    return ids


if __name__ == "__main__":
    sys.exit(main())
