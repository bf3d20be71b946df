"""`make bench-feast-api`: the same requests to Feast's own feature server and to Endcap, over the same store.

On the demo shop of `make bench-open`, in whose endcap.toml Feast's API is opened. Both servers run at once, one process
each, and are asked in turn, `--rounds` times; of each the round with the least CPU counts. Features of users: all of
`user_profile` and `user_activity`, of one user and of a hundred.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from infra.bench_open import user_ids, wait
from service.valkey import free_port

CLIENTS = 8
VIEWS = ("user_profile", "user_activity")
OPEN = "\n[feast_api]\nenabled = true\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("var/bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a round")
    arguments = parser.parse_args()
    toml, ports = arguments.dir / "endcap.toml", (free_port(), free_port())
    made = [sys.executable, "-m", "service.cli", "demo", "--dir", str(arguments.dir), "--port", str(ports[0])]
    if not toml.exists() or "[feast_api]" not in toml.read_text():
        with subprocess.Popen(made, stdout=sys.stderr) as service:  # noqa: S603
            wait(f"http://127.0.0.1:{ports[0]}/readyz", service)
            service.send_signal(signal.SIGTERM)
        toml.write_text(toml.read_text() + OPEN)
    with subprocess.Popen(made, stdout=sys.stderr) as service:  # noqa: S603
        try:
            wait(f"http://127.0.0.1:{ports[0]}/readyz", service)
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with subprocess.Popen(feast(arguments.dir, ports[1]), **quiet) as feasts:  # noqa: S603
                try:
                    asyncio.run(compare(arguments, ports, (service.pid, feasts.pid)))
                finally:
                    feasts.send_signal(signal.SIGTERM)
        finally:
            service.send_signal(signal.SIGTERM)
    return 0


def feast(directory: Path, port: int) -> list[str]:
    """Feast's own server, on one worker, without its log of accesses."""
    at = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--no-access-log", "--max-requests", "0"]
    code = "import sys; from feast.cli.cli import cli; cli(sys.argv[1:])"
    return [sys.executable, "-c", code, "-c", str(directory / "feature_repo"), "serve", *at]


async def compare(arguments: argparse.Namespace, ports: tuple[int, int], pids: tuple[int, int]) -> None:
    users, features = user_ids(arguments.dir), references(arguments.dir)
    urls = [f"http://127.0.0.1:{port}/get-online-features" for port in ports]
    async with aiohttp.ClientSession() as session:
        await opened(session, f"http://127.0.0.1:{ports[1]}/health")
        for count in (1, 100):
            bodies = [
                {
                    "features": features,
                    "entities": {"user_id": [users[(n * count + i) % len(users)] for i in range(count)]},
                }
                for n in range(50)
            ]
            best: list[dict[str, float] | None] = [None, None]
            for _ in range(arguments.rounds):
                for one, (url, pid) in enumerate(zip(urls, pids, strict=True)):
                    found = await asked(session, url, bodies, arguments.seconds, pid)
                    before = best[one]
                    best[one] = found if before is None or found["cpu"] < before["cpu"] else before
            ours, theirs = best
            assert ours is not None and theirs is not None
            said = "; ".join(shown(name, it) for name, it in (("Endcap", ours), ("Feast", theirs)))
            share = ours["cpu"] / theirs["cpu"]
            print(f"{count} users x {len(features)} features, {CLIENTS} clients: {said}; of Feast's CPU {share:.1%}")


def shown(name: str, it: dict[str, float]) -> str:
    return f"{name} {it['rps']:,.0f}/s, p50 {it['p50']:.1f} ms, p99 {it['p99']:.1f}, CPU {it['cpu']:.2f} ms each"


def references(directory: Path) -> list[str]:
    from features.facts import Feast

    views = Feast(directory / "feature_repo").facts().offer.views
    return [f"{view}:{name}" for view in VIEWS for name in views[view].types]


async def opened(session: aiohttp.ClientSession, url: str) -> None:
    for _ in range(600):
        try:
            async with session.get(url) as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.2)
    sys.exit("Feast's own server was not up in two minutes")


async def asked(
    session: aiohttp.ClientSession, url: str, bodies: list[dict[str, Any]], seconds: float, pid: int
) -> dict[str, float]:
    """Requests a second, milliseconds, and milliseconds of the server's CPU for each request."""
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def client(first: int) -> None:
        number = first
        while (began := time.perf_counter()) < until:
            async with session.post(url, json=bodies[number % len(bodies)]) as response:
                await response.read()
                assert response.status == 200, await response.text()
            took.append(time.perf_counter() - began)
            number += CLIENTS

    before = cpu_s(pid)
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    spent = cpu_s(pid) - before
    took.sort()
    at = {name: took[min(int(len(took) * q), len(took) - 1)] * 1e3 for name, q in (("p50", 0.5), ("p99", 0.99))}
    return {"rps": len(took) / seconds, "cpu": spent / len(took) * 1e3, **at}


def cpu_s(pid: int) -> float:
    """Of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    stat = re.sub(r"^.*\) ", "", Path(f"/proc/{pid}/stat").read_text()).split()
    own = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_s(int(child)) for child in children)


if __name__ == "__main__":
    sys.exit(main())
