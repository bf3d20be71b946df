"""One process of a replay: it reads the log for itself, takes its share of the requests and plays them."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from load.bench import settled_heap
from load.client import OpenLoop
from load.doors import Door
from load.errors import LoadError
from load.outcome import Run
from load.replay_plan import Pace, plan
from load.replay_tally import News, ReplayTally

NEWS_S = 0.5


@dataclass(frozen=True, slots=True)
class Share:
    """Part `part` of `parts` of a log. `warmup` and `grace` are seconds; `connections` is for this process."""

    log: Path
    door: Door[Any]
    pace: Pace
    part: int
    parts: int
    warmup: float
    connections: int
    grace: float


class Ready(NamedTuple):
    """Connected, and waiting to be told the moment at which the run begins."""


class Report(NamedTuple):
    """News, the requests that have fallen due so far, and the CPU seconds spent since the beginning."""

    news: News
    dispatched: int
    cpu: float


class Done(NamedTuple):
    """All is over."""

    tally: ReplayTally
    run: Run


class Failed(NamedTuple):
    """It could not take place, for a reason in one line."""

    reason: str


def work(share: Share, pipe: Pipe) -> None:
    """Play a share: Ready, then (told when) Reports and Done go into `pipe`; or Failed. A closed pipe ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command itself is interrupted, and ends this process
    try:
        with settled_heap(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            pipe.send(runner.run(_play(share, pipe)))
    except LoadError as error:
        pipe.send(Failed(str(error)))
    except (EOFError, BrokenPipeError):
        return  # whoever started this has gone, or has had enough: nobody is left to be told


async def _play(share: Share, pipe: Pipe) -> Done:
    tally = ReplayTally(share.warmup)
    client = OpenLoop(share.door.transport(share.connections), tally.add, grace=share.grace)
    planned = plan(share.log, share.door, share.pace, share.part, share.parts)
    # The first request is read ahead: opening a file may take as long as many requests.
    planned = itertools.chain(list(itertools.islice(planned, 1)), planned)
    cpu = 0.0

    def begin() -> float:
        nonlocal cpu
        pipe.send(Ready())
        start: float = pipe.recv()
        cpu = time.process_time()
        return start

    def tell() -> None:
        pipe.send(Report(tally.news(), client.dispatched, time.process_time() - cpu))

    playing = asyncio.ensure_future(client.run(planned, begin))
    while not playing.done():
        await asyncio.wait([playing], timeout=NEWS_S)
        if client.dispatched:
            tell()
    run = await playing
    tell()
    return Done(tally, run)
