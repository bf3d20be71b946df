"""`make bench-replay`: does the client of `endcap replay` measure the server, or itself?

Against a server of its own that answers at once, pinned to one core, with the client on another: how late one process
is at a given rate, over HTTP and over gRPC; what a pause of the server comes to in an open loop and in a closed one;
and what memory the client holds on the way through a long log.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import math
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httptools
import orjson
import uvloop

from load.doors import door_of
from load.histogram import Durations
from load.http1 import parse_url
from load.processes import machine, usage
from load.replay import Played, Progress, Replay, play
from load.replay_plan import Pace

BODY = b'{"items":[],"degraded":[]}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: at-once\r\nServer-Timing: rank;dur=0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
PAUSE_S = 0.1
PARTS = ("lateness", "grpc", "pause", "memory")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0, help="requests/s")
    parser.add_argument("--duration", type=float, default=30.0, help="seconds of the first two parts")
    parser.add_argument("--rows", type=int, default=100_000, help="of the long log")
    parser.add_argument("--rows-rate", type=float, default=2500.0, help="requests/s at which the long log is played")
    parser.add_argument("--only", choices=PARTS, help="one of the parts [all]")
    parser.add_argument("--connections", type=int, help="of the client, over gRPC [its default]")
    parser.add_argument("--pause-every", type=float, help=argparse.SUPPRESS)  # makes this process the server
    parser.add_argument("--grpc", action="store_true", help=argparse.SUPPRESS)  # and one of gRPC
    arguments = parser.parse_args()
    if arguments.grpc:
        asyncio.run(serve_grpc())
        return 0
    if arguments.pause_every is not None:
        serve(arguments.pause_every)
        return 0
    parts = PARTS if arguments.only is None else (arguments.only,)
    print(machine())
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        if "lateness" in parts:
            lateness(folder, arguments.rate, arguments.duration)
        if "grpc" in parts:
            for rate in (arguments.rate / 2, arguments.rate):
                lateness(folder, rate, arguments.duration, grpc=True, connections=arguments.connections)
        if "pause" in parts:
            pause(folder, arguments.rate, arguments.duration)
        if "memory" in parts:
            memory(folder, arguments.rows, arguments.rows_rate)
    return 0


def lateness(folder: Path, rate: float, duration: float, *, grpc: bool = False, connections: int | None = None) -> None:
    """One process at a rate."""
    log = write_log(folder / "rate.ndjson", rate, round(rate * duration))
    with server(grpc=grpc) as url:
        played = replay(log, url, warmup=1.0, connections=connections)
    late, latency = played.tally.tally.lateness, played.tally.tally.latency
    print(
        f"one process over {'gRPC' if grpc else 'HTTP'}, {played.run.connections} connections, {rate:g} requests/s for "
        f"{duration:g} s: {late.count} requests, late by {ms(late, 50)} ms at p50"
        f", {ms(late, 99)} at p99, {played.tally.late / late.count:.2%} later than 1 ms; latency {ms(latency, 50)} ms "
        f"at p50, {ms(latency, 99)} at p99; {played.cpu / played.run.seconds:.0%} of a core; stolen {stolen(played)}"
    )


def pause(folder: Path, rate: float, duration: float) -> None:
    """A server that stops for 100 ms every five seconds, asked in both ways."""
    log = write_log(folder / "pause.ndjson", rate, round(rate * duration))
    with server(pause_every=5.0) as url:
        latency = replay(log, url, warmup=1.0).tally.tally.latency
        closed = closed_loop(url, rate, duration)
    print(
        f"a pause of {1e3 * PAUSE_S:g} ms every 5 s: open loop p99 {ms(latency, 99)} ms of {latency.count}, "
        f"closed loop p99 {ms(closed, 99)} ms of {closed.count} (max {1e3 * (closed.max() or 0):.1f})"
    )


def memory(folder: Path, rows: int, rate: float) -> None:
    """Resident memory of the playing process and of the one that adds up, on the way through a long log."""
    log = write_log(folder / "long.ndjson", rate, rows)
    seen: list[tuple[int, float, float]] = []

    def watch(progress: Progress) -> None:
        children = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
        if children and progress.due >= rows * len(seen) / 10 and progress.due < rows:
            own = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            seen.append((progress.due, usage(children).rss / 1e6, own / 1e6))

    with server() as url:
        played = replay(log, url, watch=watch)
    print(f"a log of {rows} rows, {log.stat().st_size / 1e6:.0f} MB: {played.tally.tally.answered} answered; resident")
    print("  " + ", ".join(f"{playing:.1f} + {adding:.1f} MB at {due / rows:.0%}" for due, playing, adding in seen))


def replay(
    log: Path, url: str, *, warmup: float = 0.0, connections: int | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Played:  # fmt: skip
    door = door_of(url)
    given = Replay(
        log=log,
        door=door,
        pace=Pace(1.0),
        processes=1,
        warmup=warmup,
        connections=connections or door.connections,
        grace=5.0,
    )
    return play(given, watch)


def closed_loop(url: str, rate: float, duration: float) -> Durations:
    """One caller who waits for each answer before it asks again, and no faster than `rate`."""
    target, durations = parse_url(url), Durations()
    caller = http.client.HTTPConnection(target.host, target.port)
    until = time.monotonic() + duration
    while (sent := time.monotonic()) < until:
        caller.request("POST", "/", b"{}", {"Content-Type": "application/json"})
        caller.getresponse().read()
        durations.record(time.monotonic() - sent)
        time.sleep(max(0.0, sent + 1 / rate - time.monotonic()))
    caller.close()
    return durations


def write_log(path: Path, rate: float, rows: int) -> Path:
    """Poisson arrivals, a thousand shoppers."""
    rng, at = random.Random(1), 0.0
    with path.open("wb") as out:
        for _ in range(rows):
            at += rng.expovariate(rate)
            body = orjson.dumps({"user_id": f"u{rng.randrange(1000):05d}", "placement": "home", "count": 20})
            entry = {"at_us": round(at * 1e6), "method": "POST", "path": "/v1/recommendations"}
            out.write(orjson.dumps({**entry, "headers": {}, "body": body.decode()}) + b"\n")
    return path


@contextmanager
def server(pause_every: float = math.inf, *, grpc: bool = False) -> Iterator[str]:
    """A server on the last core that is usable; this process, and so the client, keeps to the first."""
    cores = sorted(os.sched_getaffinity(0))
    command = [
        sys.executable,
        "-m",
        "infra.bench_replay",
        *(["--grpc"] if grpc else ["--pause-every", str(pause_every)]),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            os.sched_setaffinity(process.pid, {cores[-1]})
            os.sched_setaffinity(0, {cores[0]})
            yield f"{'grpc' if grpc else 'http'}://127.0.0.1:{port}"
        finally:
            os.sched_setaffinity(0, set(cores))
            process.terminate()


def serve(pause_every: float) -> None:
    """Print a port and answer there; stop the whole process for 100 ms every `pause_every` seconds (inf: never)."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(AtOnce, "127.0.0.1", 0)
        print(listener.sockets[0].getsockname()[1], flush=True)
        while True:
            await asyncio.sleep(min(pause_every, 3600.0))
            if math.isfinite(pause_every):
                time.sleep(PAUSE_S)  # noqa: ASYNC251 - the pause is to stop everything

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def serve_grpc() -> None:
    """Print a port and give the same answer there to every Recommend."""
    import grpc.aio

    from load.rpc.calls import RECOMMEND, SERVICE
    from load.rpc.stubs import recommendations_pb2 as pb

    answer = pb.Recommendation(items=[pb.Item(item_id=f"i{number:05d}", score=0.5) for number in range(20)])
    encoded = answer.SerializeToString()

    async def recommend(_: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("server-timing", "rank;dur=0.1"),))
        return encoded

    method = grpc.unary_unary_rpc_method_handler(recommend)
    listener = grpc.aio.server()
    listener.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {RECOMMEND.rpartition("/")[2]: method}),)
    )
    port = listener.add_insecure_port("127.0.0.1:0")
    await listener.start()
    print(port, flush=True)
    await listener.wait_for_termination()


class AtOnce(asyncio.Protocol):
    """One connection: the same answer to every request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(ANSWER)  # type: ignore[attr-defined]


def ms(durations: Durations, percent: float) -> str:
    value = durations.percentile(percent)
    return "-" if value is None else f"{1e3 * value:.2f}"


def stolen(played: Played) -> str:
    return "unknown" if played.stolen_s is None else f"{played.stolen_s / played.run.seconds:.1%} of a core"


if __name__ == "__main__":
    sys.exit(main())
