"""`endcap replay`: a traffic log played against an address by as many processes as its schedule needs.

This process plays nothing. It starts the others, tells them when to begin, and adds up what they report, so that what
it draws on a terminal delays no request.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import connection
from multiprocessing.connection import Connection as Pipe
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from load.doors import Door
from load.errors import LoadError
from load.outcome import Run
from load.processes import stolen
from load.replay_plan import Pace, Survey
from load.replay_tally import ReplayTally, Seconds
from load.replay_worker import Done, Failed, Ready, Report, Share, work

HEAD_START_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What to play. `warmup` and `grace` in seconds; `connections` of all processes together."""

    log: Path
    door: Door[Any]
    pace: Pace
    processes: int
    warmup: float
    connections: int
    grace: float


@dataclass(slots=True)
class Progress:
    """How a run stands. Counts: `due` by the clock, and of what is finished, after the warm-up."""

    elapsed: float = 0.0
    due: int = 0
    finished: int = 0
    late: int = 0
    errors: int = 0
    seconds: Seconds = field(default_factory=Seconds)


@dataclass(slots=True)
class Played:
    """A whole run. `cpu` and `stolen_s` are seconds, of the busiest process and of the machine (None: not known)."""

    started: str
    tally: ReplayTally
    seconds: Seconds
    run: Run
    cpu: float
    stolen_s: float | None


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes_for(seen: Survey, speed: float, door: Door[Any]) -> int:
    """As many as the busiest second needs, and no more than leave a core to the server where it may be here too."""
    return max(1, min(math.ceil(seen.peak_rate(speed) / door.per_process), usable_cores() - 1))


def play(replay: Replay, watch: Callable[[Progress], None] = lambda progress: None) -> Played:
    """Play it; `watch` is called about twice a second. Raises LoadError when it cannot take place or go on."""
    started, theft = datetime.now(UTC).isoformat(timespec="seconds"), stolen()
    progress, tally = Progress(), ReplayTally(replay.warmup)
    runs, cpu = list[Run](), dict[Pipe, float]()
    with _children(replay) as pipes:
        begin = _begin_together(pipes)
        left = list(pipes)
        due = dict.fromkeys(pipes, 0)
        while left:
            for pipe in connection.wait(left):
                assert isinstance(pipe, Pipe)
                message = _receive(pipe)
                if isinstance(message, Done):
                    tally.merge(message.tally)
                    runs.append(message.run)
                    left.remove(pipe)
                else:
                    assert isinstance(message, Report)
                    due[pipe], cpu[pipe] = message.dispatched, message.cpu
                    _take(message, progress)
            progress.elapsed, progress.due = time.monotonic() - begin, sum(due.values())
            watch(progress)
    after = stolen()
    whole = Run(
        max(run.seconds for run in runs), sum(r.connections for r in runs), sum(r.connect_failures for r in runs)
    )
    took = None if theft is None or after is None else after - theft
    return Played(started, tally, progress.seconds, whole, max(cpu.values()), took)


def _take(report: Report, progress: Progress) -> None:
    progress.finished += report.news.finished
    progress.late += report.news.late
    progress.errors += report.news.errors
    progress.seconds.add(report.news.cells)


@contextlib.contextmanager
def _children(replay: Replay) -> Iterator[list[Pipe]]:
    """The processes that play, each with the other end of a pipe; ended when the block is left, however it is left."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit this process's heap, and its threads' locks
    children: list[SpawnProcess] = []
    pipes: list[Pipe] = []
    connections = math.ceil(replay.connections / replay.processes)
    try:
        for part in range(replay.processes):
            ours, theirs = context.Pipe()
            pipes.append(ours)
            share = Share(
                replay.log, replay.door, replay.pace, part, replay.processes, replay.warmup, connections, replay.grace
            )
            child = context.Process(target=work, args=(share, theirs), daemon=True)
            child.start()
            theirs.close()
            children.append(child)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.join(1.0)
            if child.is_alive():
                child.kill()
                child.join()


def _begin_together(pipes: list[Pipe]) -> float:
    for pipe in pipes:
        message = _receive(pipe)
        assert isinstance(message, Ready)
    begin = time.monotonic() + HEAD_START_S
    for pipe in pipes:
        pipe.send(begin)
    return begin


def _receive(pipe: Pipe) -> Ready | Report | Done:
    try:
        message = pipe.recv()
    except EOFError as error:
        raise LoadError("a process of the client has ended before its time") from error
    if isinstance(message, Failed):
        raise LoadError(message.reason)
    assert isinstance(message, Ready | Report | Done)
    return message
