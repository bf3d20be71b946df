"""`make bench-swap`: a promotion and a rollback under open-loop load, with two workers on this machine.

A copy of the demo shop of `make bench-open`, whose one version becomes two. First each change loads a version from
disk, and a few more in a row, without load, show what memory does; then both are loaded, one as the candidate. Several
clients with connections of their own ask, so that every worker is asked.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
import uvloop

from infra.bench_memory import MIB, family, memory
from infra.bench_open import user_ids, wait
from load.client import OpenLoop
from load.http1 import Target, encode_post
from load.outcome import Outcome, Planned
from load.processes import machine, stolen, usage
from load.schedule import poisson
from load.traffic import zipf
from ranking.aliases import CANDIDATE, PRODUCTION
from ranking.bundle import MANIFEST
from ranking.registry import Registry, point
from service.deployment import Deployment
from service.valkey import free_port

CLIENTS = 8
"""Each keeps to one connection as long as it is answered in time; the kernel gives connections to workers at random."""
WARM_S, SECOND_S, SETTLE_S = 2.0, 1.0, 4.0
NAME = "default"
PATIENT = r"\1\ntimeout_ms = 1000"
"""So that only a request that is lost fails, and one that is slow is seen to be slow."""


@dataclass
class Seen:
    """What came of requests: (when due, latency, version) in seconds; no version where no answer came."""

    rows: list[tuple[float, float, str]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        version = ""
        if outcome.answer is not None and outcome.answer.status == 200:
            version = orjson.loads(outcome.answer.body)["model"]["version"]
        else:
            self.failures[outcome.error or str(outcome.answer.status if outcome.answer else "")] += 1
        self.rows.append((outcome.at, outcome.latency, version))

    def line(self, what: str, start: float, end: float) -> float:
        """Prints the quantiles of what fell due in a span, and returns its p99 in ms."""
        took = [latency * 1e3 for at, latency, _ in self.rows if start <= at < end]
        p50, p99 = np.quantile(took, (0.5, 0.99))
        print(f"  {what:32s} {len(took):6d} requests  p50 {p50:5.1f} ms  p99 {p99:5.1f}  max {max(took):5.1f}")
        return float(p99)

    def change(self, at: float, version: str) -> str:
        """When, after `at`, the first and the last worker answered with this version."""
        new = [due + took for due, took, its in self.rows if its == version and due + took > at]
        until = at + 12.0
        old = [due for due, _, its in self.rows if its not in (version, "") and at < due < until]
        return (
            f"first answer after {min(new) - at:.2f} s, none of the old version {max(old, default=at) - at:.2f} s after"
        )


class Shop:
    """The copy, with the models' registry."""

    def __init__(self, home: Path) -> None:
        self.home, self.registry = home, Registry(home / "models")

    @staticmethod
    def copy(source: Path, home: Path) -> Shop:
        shutil.copytree(source, home, ignore=shutil.ignore_patterns("log", "*.sock", "*.pid"))
        settings, store = home / "endcap.toml", home / "feature_repo" / "feature_store.yaml"
        text = re.sub(r"^keep = \d+", "keep = 1", settings.read_text(), flags=re.MULTILINE)
        settings.write_text(re.sub(r"^(\[placements\.home\].*)$", PATIENT, text, flags=re.MULTILINE))
        address = f"connection_string: 127.0.0.1:{free_port()}"
        store.write_text(re.sub(r"connection_string: \S+", address, store.read_text()))
        return Shop(home)

    def add(self, version: str) -> None:
        """Another version, as the first one is but for its number."""
        models = self.registry.models / NAME
        beside = models / f".{version}.partial"
        shutil.copytree(models / "1", beside)
        manifest = json.loads((beside / MANIFEST).read_text())
        (beside / MANIFEST).write_text(json.dumps({**manifest, "version": version}))
        beside.rename(models / version)

    def set(self, alias: str, version: str) -> None:
        there = self.registry.versions(NAME)
        self.registry.change(NAME, lambda state: point(state, alias, version, there))

    @contextmanager
    def served(self, workers: int) -> Iterator[tuple[int, int]]:
        """Until the end of the block the service's port and pid."""
        port = free_port()
        command = [
            sys.executable, "-m", "service.cli", "serve", "--dir", str(self.home), "--host", "127.0.0.1",
            "--port", str(port), "--workers", str(workers),
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=sys.stderr) as service:  # noqa: S603
            try:
                wait(f"http://127.0.0.1:{port}/readyz", service)
                time.sleep(WARM_S)
                yield port, service.pid
            finally:
                service.send_signal(signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("var/bench"))
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--duration", type=float, default=40.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--swaps", type=int, default=5, help="changes in a row without load, for memory")
    arguments = parser.parse_args()
    if not Deployment.exists(arguments.dir):
        command = [sys.executable, "-m", "infra.bench_open", "--dir", str(arguments.dir), "--duration", "1"]
        subprocess.check_call(command)  # noqa: S603
    print(machine())
    users, failed = user_ids(arguments.dir), 0
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop.copy(arguments.dir, Path(folder) / "shop")
        shop.set(PRODUCTION, "1")
        with shop.served(arguments.workers) as (port, pid):
            shop.add("2")
            print("a version that is not loaded:")
            failed += under_load(shop, port, pid, users, arguments.rate, arguments.duration)
            show_swaps(shop, pid, arguments.swaps)
        shop.set(PRODUCTION, "1")
        shop.set(CANDIDATE, "2")
        with shop.served(arguments.workers) as (port, pid):
            print("a version that is loaded, as the candidate:")
            failed += under_load(shop, port, pid, users, arguments.rate, arguments.duration)
    return 1 if failed else 0


def under_load(shop: Shop, port: int, pid: int, users: Sequence[str], rate: float, duration: float) -> int:
    """A promotion a quarter of the way and a rollback at five eighths of it. Returns how many requests failed."""
    target, seen = Target("127.0.0.1", port, False, "/v1/recommendations"), Seen()
    changes = [(duration / 4, "2"), (duration * 5 / 8, "1")]
    before, stolen_s, others_s = resident(pid), stolen(), others()
    gc.collect()
    gc.freeze()
    uvloop.run(
        play(shop, target, seen, [plan(target, users, rate, duration, seed) for seed in range(CLIENTS)], changes)
    )
    gc.unfreeze()
    taken = (stolen() or 0.0) - (stolen_s or 0.0)
    beside = (others() - others_s) / duration
    failed = sum(not version for *_, version in seen.rows)
    (promoted, _), (rolled_back, _) = changes
    what = f"{failed} failed {dict(seen.failures) or ''}"
    print(
        f"  {len(seen.rows)} requests at {rate:g}/s, {what}; other jobs took {beside:.1f} cores, {taken:.1f} s stolen"
    )
    p99 = seen.line("before", WARM_S, promoted)
    for what, at, version in (("promotion", promoted, "2"), ("rollback", rolled_back, "1")):
        print(f"  {what}: {seen.change(at, version)}")
        seen.line(f"in the second after the {what}", at, at + SECOND_S)
        seen.line("in the two after that", at + SECOND_S, at + 3 * SECOND_S)
    seen.line("after", rolled_back + 5, duration)
    slow = sum(took * 1e3 > p99 + 10 for at, took, _ in seen.rows if promoted <= at < rolled_back + 5)
    still = sum(took * 1e3 > p99 + 10 for at, took, _ in seen.rows if WARM_S <= at < promoted)
    print(f"  slower than p99 + 10 ms ({p99 + 10:.1f}): {slow} between the changes and 5 s after, {still} before them")
    print(f"  memory of all processes (PSS): {before:.0f} MiB before, {resident(pid):.0f} after")
    return failed


def plan(target: Target, users: Sequence[str], rate: float, duration: float, seed: int) -> list[Planned]:
    """One client's share of Poisson arrivals."""
    times = poisson(rate / CLIENTS, duration, seed)
    drawn = zipf(len(users), len(times), 1.0, seed + 100).tolist()
    bodies = [{"user_id": users[user], "placement": "home", "count": 20} for user in drawn]
    return [Planned(at, encode_post(target, orjson.dumps(one))) for at, one in zip(times.tolist(), bodies, strict=True)]


async def play(
    shop: Shop, target: Target, seen: Seen, plans: Sequence[list[Planned]], changes: Sequence[tuple[float, str]]
) -> None:
    begin = time.monotonic() + 0.2

    async def change() -> None:
        for at, version in changes:
            await asyncio.sleep(begin + at - time.monotonic())
            await asyncio.to_thread(shop.set, PRODUCTION, version)

    clients = [OpenLoop(target, seen.add, connections=100, grace=5.0) for _ in plans]
    await asyncio.gather(change(), *(one.run(each, lambda: begin) for one, each in zip(clients, plans, strict=True)))


def show_swaps(shop: Shop, pid: int, swaps: int) -> None:
    """Memory while a version that was never there comes in, and once the oldest one has gone; change after change."""
    figures = [resident(pid)]
    for turn in range(swaps):
        shop.add(str(turn + 3))
        shop.set(PRODUCTION, str(turn + 3))
        figures.append(max(resident(pid) for _ in sampled(SETTLE_S)))
        time.sleep(SETTLE_S)
        figures.append(resident(pid))
    told = ", ".join(f"{most:.0f} then {after:.0f}" for most, after in zip(figures[1::2], figures[2::2], strict=True))
    print(f"  {swaps} changes in a row, PSS in MiB: {figures[0]:.0f} before; at most and afterwards: {told}")


def sampled(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.1)


def others() -> float:
    """CPU seconds that neither this process nor what it has started has taken since the machine began."""
    total = [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, *_ = total
    busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return busy - usage([os.getpid()]).cpu


def resident(pid: int) -> float:
    """MiB of a process and its descendants, what they share counted once. Of none that has ended meanwhile."""
    return sum(memory(one)[1] for _, one in family(pid)) / MIB


if __name__ == "__main__":
    sys.exit(main())
