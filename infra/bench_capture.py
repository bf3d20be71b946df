"""What recording its own traffic costs the service: `python -m infra.bench_capture --dir DIR`.

One process has the service of a deployment and a client that keeps some connections busy. Rounds with and without
recording alternate on new connections, and of each the least is taken: CPU of the whole process a request, client and
writing thread included, and p99. Before that, what a connection's reader and the writing thread take of it, alone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from service.app import App
from service.capture import Capture
from service.config import CaptureConfig, LogConfig
from service.deployment import Deployment
from service.http.lane import Scanner
from service.http.tape import Tape

PATH = "/v1/recommendations"
HEADERS = ("Host: shop", "Content-Type: application/json", "User-Agent: storefront/1", "Accept: */*",
           "Accept-Encoding: gzip, deflate", "Endcap-Timeout-Ms: 200")  # fmt: skip
BODY = '{"user_id": "%s", "placement": "home", "count": 20, "context": {"spend_30d": 12.5}}'
EACH = 2000


def request(user: str) -> bytes:
    body = (BODY % user).encode()
    return "\r\n".join([f"POST {PATH} HTTP/1.1", *HEADERS, f"Content-Length: {len(body)}", "", ""]).encode() + body


def capture(directory: str, **settings: Any) -> Capture:
    return Capture(Path(directory), CaptureConfig(enabled=True, **settings), 1 << 20, hold_s=0.0)


def least(rounds: int, *steps: Callable[[], float]) -> list[float]:
    """The least of each step's figures; the steps take turns."""
    found = [[step() for step in steps] for _ in range(rounds)]
    return [min(each) for each in zip(*found, strict=True)]


def parts(rounds: int) -> None:
    """Microseconds a request of the reader, with and without, and of the thread's work, by settings."""
    data = [request(f"u{number}") for number in range(EACH)]

    def read(recorder: Capture | None) -> float:
        scanner = Scanner({PATH.encode(): PATH}, 1 << 20, tape := None if recorder is None else Tape(recorder))
        began = time.perf_counter()
        for one in data:
            if tape is not None:
                tape.arrived()
            scanner.feed(one)
        return (time.perf_counter() - began) / EACH * 1e6

    def write(**settings: Any) -> Callable[[], float]:
        def step() -> float:
            with tempfile.TemporaryDirectory() as directory:
                one = capture(directory, **settings)
                read(one)
                began = time.perf_counter()
                one.flush()
                took = (time.perf_counter() - began) / EACH * 1e6
                one.stop()
                return took

        return step

    def recorded() -> float:
        with tempfile.TemporaryDirectory() as directory:
            return read(capture(directory))

    off, on = least(rounds, lambda: read(None), recorded)
    print(f"reading a request: {off:.2f} us, recorded {on:.2f} us")
    settings: dict[str, dict[str, Any]] = {
        "all": {}, "share 0.1": {"share": 0.1}, "hash user_id": {"hash": ["user_id"]},
        "hash user_id, drop context": {"hash": ["user_id"], "drop": ["context"]},
    }  # fmt: skip
    for name, took in zip(settings, least(rounds, *(write(**one) for one in settings.values())), strict=True):
        print(f"writing a request, {name}: {took:.2f} us")


async def play(port: int, users: list[str], connections: int) -> tuple[float, float, int]:
    """CPU microseconds a request, p99 in ms, and how many had no answer in time."""
    left, times, late = itertools.islice(itertools.cycle(users), EACH), [], 0

    async def one() -> None:
        nonlocal late
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for user in left:
            began = time.perf_counter()
            writer.write(request(user))
            head = await reader.readuntil(b"\r\n\r\n")
            late += not head.startswith(b"HTTP/1.1 200")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            times.append(time.perf_counter() - began)
        writer.close()

    cpu = time.process_time()
    await asyncio.gather(*(one() for _ in range(connections)))
    return (time.process_time() - cpu) / EACH * 1e6, sorted(times)[int(len(times) * 0.99)] * 1e3, late


async def whole(here: Deployment, users: list[str], rounds: int, connections: int) -> None:
    config = msgspec.structs.replace(here.config, log=LogConfig(enabled=False))
    app = App(here.directory, config)
    port = await app.listen("127.0.0.1", 0)
    await app.load()
    await play(port, users, connections)
    found: dict[bool, list[tuple[float, float, int]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as directory:
        for turn in range(2 * rounds):
            on = turn % 2 == 1
            recorder = Capture(Path(directory), CaptureConfig(enabled=True), 1 << 20) if on else None
            app.api.answers.capture = recorder
            if recorder is not None:
                recorder.start()
            found[on].append(await play(port, users, connections))
            if recorder is not None:
                await recorder.close()
                assert (recorder.written, recorder.dropped) == (EACH, 0)
    await app.stop()
    for on, each in found.items():
        cpu, p99, _ = (min(one) for one in zip(*each, strict=True))
        late = sum(one[2] for one in each)
        how = "recorded" if on else "not recorded"
        print(f"{connections} connections, {how}: {cpu:.0f} us CPU, p99 {p99:.2f} ms, {late} of all without an answer")
    pairs = sorted(on[0] - off[0] for off, on in zip(found[False], found[True], strict=True))
    print(f"difference of pairs: median {pairs[len(pairs) // 2]:+.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, help="a deployment, with a file users.txt of user ids")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--connections", type=int, default=4)
    arguments = parser.parse_args()
    parts(arguments.rounds)
    if arguments.dir is not None:
        here = Deployment.at(arguments.dir)
        users = (arguments.dir / "users.txt").read_text().split()
        random.Random(0).shuffle(users)
        with here.online_store():
            uvloop.run(whole(here, users, arguments.rounds, arguments.connections))


if __name__ == "__main__":
    main()
