"""One open-loop run from options to result: the only place where schedule, traffic, client and report meet."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uvloop

from load import schedule
from load.client import OpenLoop
from load.connections import Connections
from load.errors import LoadError
from load.http1 import Target
from load.outcome import Run
from load.processes import Usage, machine, stolen, usage
from load.result import Result, ServerUse, make_result
from load.slo import Bound, judge
from load.tally import Tally
from load.traffic import recommendation_requests, zipf


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to play. `rate` in requests/s; `duration`, `warmup`, `grace` in seconds; the rest as in the CLI's help."""

    url: str
    target: Target
    rate: float
    duration: float
    warmup: float
    schedule: str
    users: list[str]
    zipf: float
    placement: str
    count: int
    seed: int
    connections: int
    grace: float
    slo: tuple[Bound, ...]
    pid: list[int]


def play(options: Options) -> Result:
    """Play the traffic and add up what came back. Raises LoadError when it cannot take place."""
    usage(options.pid)  # refuse a wrong process id now, not after the run
    tally = Tally(since=options.warmup)
    started, cpu, theft = datetime.now(UTC).isoformat(timespec="seconds"), time.process_time(), stolen()
    with settled_heap(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        run, before = runner.run(_run(options, tally))
    cpu = time.process_time() - cpu
    theft_after = stolen()
    stolen_s = None if theft is None or theft_after is None else theft_after - theft
    return make_result(
        tally,
        run,
        judge(options.slo, tally),
        settings=_settings(options),
        machine=machine(),
        started=started,
        warmup=options.warmup,
        client_cpu=cpu,
        stolen_s=stolen_s,
        server=_server_use(before, options.pid, tally) if before is not None else None,
    )


async def _run(options: Options, tally: Tally) -> tuple[Run, Usage | None]:
    """Play it, and look at the server's processes when the warm-up is over."""
    total = options.warmup + options.duration
    if options.schedule == "poisson":
        times = schedule.poisson(options.rate, total, options.seed)
    else:
        times = schedule.constant(options.rate, total)
    # Another stream of random numbers than the schedule's, which starts from the same seed.
    drawn = zipf(len(options.users), len(times), options.zipf, options.seed + 1)
    plan = recommendation_requests(options.target, times, options.users, drawn, options.placement, options.count)
    client = OpenLoop(Connections(options.target, options.connections), tally.add, grace=options.grace)
    watchers = []
    if sys.stderr.isatty():
        watchers.append(asyncio.create_task(_progress(tally, options)))
    looked = asyncio.create_task(_look(options)) if options.pid else None
    try:
        run = await client.run(plan)
    finally:
        for watcher in watchers:
            watcher.cancel()
            sys.stderr.write("\n")
    return run, await looked if looked is not None else None


async def _look(options: Options) -> Usage:
    await asyncio.sleep(options.warmup)
    return usage(options.pid)


async def _progress(tally: Tally, options: Options) -> None:
    """One line a second, plainly written: a drawn bar takes milliseconds, in which nothing would be sent."""
    while True:
        sys.stderr.write(f"\r{tally.answered} answered of about {options.rate * options.duration:.0f}")
        sys.stderr.write(f", {tally.planned - tally.ok} not 2xx ")
        sys.stderr.flush()
        await asyncio.sleep(1)


@contextmanager
def settled_heap() -> Iterator[None]:
    """A full collection of what the imports left behind takes tens of milliseconds: do it before, not during."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _server_use(before: Usage, pids: list[int], tally: Tally) -> ServerUse | None:
    """None when the server ended during the run: its figures are gone, what it answered before is not."""
    try:
        after = usage(pids)
    except LoadError:
        return None
    cpu = after.cpu - before.cpu
    per_1000 = cpu / tally.sent * 1e3 if tally.sent else None
    return ServerUse(round(cpu, 3), per_1000, after.rss / 1e6, after.processes)


def _settings(options: Options) -> dict[str, Any]:
    names = ("url", "rate", "duration", "warmup", "schedule", "zipf", "placement", "count", "seed", "connections")
    return {name: getattr(options, name) for name in (*names, "grace", "pid")} | {"users": len(options.users)}
