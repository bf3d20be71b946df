"""`make bench-traffic-log`: how long a traffic log takes to write and to read, and that memory does not grow with it.

Each log is written and read by a process of its own, whose largest resident memory is told (Linux).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load.traffic_log import SUFFIXES, Entry, TrafficLog, Writer

HEADERS = {"Content-Type": "application/json"}
MIB_IN_KIB = 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--log", type=Path, help="write and read this one here, of the first of --rows")
    arguments = parser.parse_args()
    if arguments.log is not None:
        print(figures(arguments.log, arguments.rows[0]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for suffix in SUFFIXES:
            for rows in arguments.rows:
                command = [sys.executable, "-m", "infra.bench_traffic_log", "--rows", str(rows)]
                subprocess.run([*command, "--log", str(Path(folder) / f"log{suffix}")], check=True)  # noqa: S603 - this very program
    return 0


def figures(path: Path, rows: int) -> str:
    began = time.perf_counter()
    with Writer(path) as log:
        for row in range(rows):
            body = f'{{"user_id": "u{row % 5_000:05d}", "placement": "home", "count": 20}}'
            log.write(Entry(row * 100, "POST", "/v1/recommendations", HEADERS, body))
    written = time.perf_counter()
    read = sum(1 for _ in TrafficLog(path, strict=True))
    ended = time.perf_counter()
    assert read == rows
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB_IN_KIB
    return (
        f"{path.name:<14}{rows:>10,} rows: written in {written - began:.1f} s, read in {ended - written:.1f} s, "
        f"{most:.0f} MiB at most, file {path.stat().st_size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
