"""`make bench-events`: how soon an event is in the next answer, and how many events one core takes in.

On the demo shop of `make bench-open`. First 500 events/s come in beside 100 recommendations/s, and every tenth body of
events is followed by a recommendation for its shopper that must know of it (`Endcap-After`): the time from the event's
202 to that answer is the figure. Then, alone and on one core (service, consumer and Valkey together), bodies of 100
events as fast as they are taken, until the last of them is in the features.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import redis

from features.store import connection
from infra.bench_open import user_ids, wait
from service.valkey import free_port

EVENTS_A_BODY = 5
PROBE_EVERY = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("var/bench"))
    parser.add_argument("--duration", type=float, default=30.0)
    parser.add_argument("--events", type=float, default=500.0, help="events a second beside the recommendations")
    parser.add_argument("--rate", type=float, default=100.0, help="recommendations a second")
    parser.add_argument("--total", type=int, default=50_000, help="events of the second part")
    arguments = parser.parse_args()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "service.cli", "demo", "--dir", str(arguments.dir), "--port", str(port)]
    with subprocess.Popen(command, stdout=sys.stderr) as service:  # noqa: S603
        try:
            wait(f"{url}/readyz", service)
            time.sleep(2)  # the demo's own first answer
            store = redis.Redis(**connection(arguments.dir / "feature_repo"), protocol=2)
            users = arguments.dir / "users.txt"
            users.write_text("\n".join(user_ids(arguments.dir)) + "\n")
            shown = visible(url, users, service.pid, store, arguments)
            taken = asyncio.run(Flood(url, users.read_text().split(), arguments.total).run(service.pid, store))
        finally:
            service.send_signal(signal.SIGTERM)
    print(shown)
    print(taken)
    return 0


def visible(url: str, users: Path, pid: int, store: Any, arguments: argparse.Namespace) -> str:
    load = [
        sys.executable, "-m", "load.cli", "open", f"{url}/v1/recommendations", "--rate", str(arguments.rate),
        "--duration", str(arguments.duration), "--users", str(users),
    ]  # fmt: skip
    stolen, before = steal(), cpu(pid, store)
    with subprocess.Popen(load, stdout=sys.stderr) as beside:  # noqa: S603
        probe = Probe(url, users.read_text().split(), arguments.events)
        asyncio.run(probe.run(arguments.duration))
        beside.wait()
    spent = cpu(pid, store) - before
    lags = sorted(probe.lags)
    at = {q: lags[min(int(len(lags) * q), len(lags) - 1)] * 1e3 for q in (0.5, 0.9, 0.99)}
    stole = (steal() - stolen) / arguments.duration
    return (
        f"event accepted to the answer that knows of it, {probe.sent:,} events at {arguments.events:g}/s beside "
        f"{arguments.rate:g} recommendations/s: p50 {at[0.5]:.1f} ms, p90 {at[0.9]:.1f}, p99 {at[0.99]:.1f}, "
        f"max {lags[-1] * 1e3:.1f} ({len(lags):,} probes, {probe.blind} without the event, {probe.failed} failed; "
        f"{spent:.1f} CPU s of service and Valkey; {stole:.1%} of a core stolen)"
    )


class Bodies:
    """Events of random shoppers about random items, as bodies."""

    def __init__(self, users: list[str]) -> None:
        self.users, self.random = users, random.Random(7)
        self.run, self.number = f"{time.time_ns():x}", 0

    def event(self, user: str) -> dict[str, Any]:
        self.number += 1
        kind = self.random.choices(("view", "cart", "purchase"), (85, 10, 5))[0]
        item = f"i{self.random.randrange(10_000):05}"
        return {"event_id": f"{self.run}-{self.number}", "user_id": user, "item_id": item, "type": kind}

    def bodies(self, size: int) -> Iterator[list[dict[str, Any]]]:
        while True:
            yield [self.event(self.random.choice(self.users)) for _ in range(size)]


class Probe:
    """Sends events on a Poisson schedule, and looks at how soon some of them are in an answer."""

    def __init__(self, url: str, users: list[str], rate: float) -> None:
        self.url, self.rate, self.source = url, rate, Bodies(users)
        self.lags: list[float] = []
        self.sent = self.blind = self.failed = 0

    async def run(self, duration: float) -> None:
        async with aiohttp.ClientSession(base_url=self.url) as session:
            began = due = time.perf_counter()
            running = set()
            for number, body in enumerate(self.source.bodies(EVENTS_A_BODY)):
                due += self.source.random.expovariate(self.rate / EVENTS_A_BODY)
                if due - began > duration:
                    break
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                task = asyncio.create_task(self.send(session, body, number % PROBE_EVERY == 0))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.gather(*running)

    async def send(self, session: aiohttp.ClientSession, body: list[dict[str, Any]], probe: bool) -> None:
        async with session.post("/v1/events", json={"events": body}) as response:
            if response.status != 202:
                self.failed += 1
                return
            token = (await response.json())["token"]
        accepted = time.perf_counter()
        self.sent += len(body)
        if not probe:
            return
        last = body[-1]
        asked = {"user_id": last["user_id"], "count": 20, "explain": True}
        async with session.post("/v1/recommendations", json=asked, headers={"Endcap-After": token}) as response:
            answer = await response.json()
        self.lags.append(time.perf_counter() - accepted)
        known = (answer.get("inputs") or {}).get("user_recent:item_ids") or []
        self.blind += last["item_id"] not in known or "context" in answer["degraded"]


class Flood:
    """Bodies of 100 events over four connections, the server on one core."""

    def __init__(self, url: str, users: list[str], total: int) -> None:
        self.url, self.total, self.source = url, total, Bodies(users)
        self.token = ""

    async def run(self, pid: int, store: Any) -> str:
        cores = sorted(os.sched_getaffinity(0))
        valkey = int(store.info("server")["process_id"])
        for one in (*threads(pid), *threads(valkey)):
            os.sched_setaffinity(one, cores[:1])
        os.sched_setaffinity(0, cores[1:] or cores)
        service, server = cpu(pid), cpu(0, store)
        bodies = (json.dumps({"events": one}).encode() for one in self.source.bodies(100))
        wanted = [next(bodies) for _ in range(self.total // 100)]
        began = time.perf_counter()
        async with aiohttp.ClientSession(base_url=self.url) as session:
            await asyncio.gather(*(self.send(session, wanted[n::4]) for n in range(4)))
            accepted = time.perf_counter() - began
            body, headers = {"user_id": "u00001", "count": 1}, {"Endcap-After": self.token}
            while True:
                async with session.post("/v1/recommendations", json=body, headers=headers) as response:
                    if "context" not in (await response.json())["degraded"]:
                        break
        took = time.perf_counter() - began
        each = 1000 / self.total
        return (
            f"{self.total:,} events on one core (service, consumer and Valkey together): accepted at "
            f"{self.total / accepted:,.0f}/s, in the features at {self.total / took:,.0f}/s; "
            f"{(cpu(pid) - service) * each:.3f} CPU s per 1,000 of the service, "
            f"{(cpu(0, store) - server) * each:.3f} of Valkey"
        )

    async def send(self, session: aiohttp.ClientSession, bodies: list[bytes]) -> None:
        for body in bodies:
            async with session.post("/v1/events", data=body, headers={"Content-Type": "application/json"}) as response:
                assert response.status == 202, await response.text()
                self.token = max(self.token, (await response.json())["token"], key=place)


def place(token: str) -> tuple[int, int]:
    head, _, tail = (token or "0-0").partition("-")
    return int(head), int(tail)


def threads(pid: int) -> list[int]:
    return [int(one.name) for one in Path(f"/proc/{pid}/task").iterdir()]


def cpu(pid: int, store: Any = None) -> float:
    """CPU seconds of a process (0: none) and of the Redis server."""
    spent = 0.0
    if pid:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    if store is not None:
        found = store.info("cpu")
        spent += float(found["used_cpu_user"]) + float(found["used_cpu_sys"])
    return spent


def steal() -> float:
    """Seconds that the hypervisor has taken from this machine's cores."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
