"""`make bench-memory`: the memory of each process of `endcap serve`, before and under load (Linux).

Of a deployment that is there (`DIR=`, its online store running unless it is embedded), or of the demo shop in
`var/bench`, which `make bench-open` makes. RSS counts what processes share in each of them, PSS its share, private what
no other has.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from infra.bench_open import user_ids, wait
from service.valkey import free_port

SETTLE_S = 3.0
MIB = 1024
FIELDS = {"Rss": 0, "Pss": 1, "Private_Clean": 2, "Private_Dirty": 2}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("var/bench"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--users", type=Path, help="a file of user ids, one a line (default: the shop's)")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--duration", type=float, default=10.0)
    arguments = parser.parse_args()
    if not (arguments.dir / "endcap.toml").is_file():
        parser.error(f"{arguments.dir} is no deployment; `make bench-open` makes var/bench")
    users = arguments.users
    if users is None:
        users = arguments.dir / "users.txt"
        users.write_text("\n".join(user_ids(arguments.dir)) + "\n")
    port, began = free_port(), time.monotonic()
    command = [
        sys.executable, "-m", "service.cli", "serve", "--dir", str(arguments.dir), "--host", "127.0.0.1",
        "--port", str(port), "--workers", str(arguments.workers),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=sys.stderr) as service:  # noqa: S603
        try:
            wait(f"http://127.0.0.1:{port}/readyz", service)
            print(f"ready after {time.monotonic() - began:.1f} s")
            time.sleep(SETTLE_S)
            show("idle", service.pid)
            load = [
                sys.executable, "-m", "load.cli", "open", f"http://127.0.0.1:{port}/v1/recommendations",
                "--rate", str(arguments.rate), "--duration", str(arguments.duration), "--users", str(users),
            ]  # fmt: skip
            code = subprocess.call(load)  # noqa: S603
            show("loaded", service.pid)
            return code
        finally:
            service.send_signal(signal.SIGTERM)


def show(when: str, pid: int) -> None:
    print(f"{when + ', MiB':24s}{'RSS':>8}{'PSS':>8}{'private':>9}")
    total = [0, 0, 0]
    for depth, one in family(pid):
        found = memory(one)
        total = [a + b for a, b in zip(total, found, strict=True)]
        print(f"{'  ' * depth + str(one):24s}{found[0] / MIB:8.0f}{found[1] / MIB:8.0f}{found[2] / MIB:9.0f}")
    print(f"{'all':24s}{total[0] / MIB:8.0f}{total[1] / MIB:8.0f}{total[2] / MIB:9.0f}", flush=True)


def family(pid: int, depth: int = 0) -> list[tuple[int, int]]:
    """A process and its descendants, each with how far down it is."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [(depth, pid), *(one for child in children for one in family(int(child), depth + 1))]


def memory(pid: int) -> list[int]:
    """KiB: RSS, PSS, private."""
    found = [0, 0, 0]
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        if name in FIELDS:
            found[FIELDS[name]] += int(value.split()[0])
    return found


if __name__ == "__main__":
    sys.exit(main())
