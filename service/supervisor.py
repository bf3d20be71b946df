"""Several workers behind one port: whole replicas, forked from a process that has loaded everything.

The supervisor prepares models and tables once and forks. A worker's memory is the supervisor's own as long as nobody
writes to it, so the second one costs little, and one that takes a dead one's place is there at once. Each worker
listens on the port itself (SO_REUSEPORT: the kernel spreads connections). The supervisor answers nothing; it starts no
thread and no event loop, which is what makes forking safe.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from service.lean import give_back
from service.zygote import STOPS, WATCHED, die_with

log = logging.getLogger(__name__)

BACKOFF_S = (0.0, 0.2, 1.0, 5.0, 15.0)
"""Before a worker takes the place of one that died, by how often it died soon after its start."""
SOON_S = 10.0
GRACE_S = 5.0
"""What workers get to end in beyond `drain_s`."""


@dataclass(slots=True)
class Place:
    """One of the workers' places, whoever fills it."""

    number: int
    pid: int = 0
    started: float = 0.0
    due: float = 0.0
    early_deaths: int = 0


class Supervisor:
    """Keeps `workers` processes running `work(number)` until a signal says to stop. `died` is told of each death."""

    def __init__(
        self,
        workers: int,
        work: Callable[[int], int],
        *,
        drain_s: float,
        died: Callable[[int], None] = lambda pid: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.places = [Place(number) for number in range(workers)]
        self.work, self.drain_s, self.died, self.clock = work, drain_s, died, clock

    def run(self) -> None:
        """Returns when all workers have ended after a stop signal."""
        gc.collect()
        give_back()
        gc.freeze()  # a collection in a worker would write to every object, and so copy it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        try:
            for place in self.places:
                self.start(place)
            while True:
                caught = signal.sigtimedwait(WATCHED, self.until_next())
                if caught is not None and caught.si_signo in STOPS:
                    break
                self.reap()
                for place in self.places:
                    if not place.pid and self.clock() >= place.due:
                        self.start(place)
        finally:
            self.stop()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def until_next(self) -> float:
        """Seconds until a place is to be filled again; at most one, so that no missed signal matters."""
        dues = [place.due - self.clock() for place in self.places if not place.pid]
        return min(max(0.0, min(dues, default=1.0)), 1.0)

    def start(self, place: Place) -> None:
        parent = os.getpid()
        place.started = self.clock()
        place.pid = os.fork()
        if place.pid:
            return
        # The worker. It must never return into the supervisor's frames.
        code = 1
        try:
            die_with(parent)
            for number in WATCHED:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
            code = self.work(place.number)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            log.exception("worker %d", place.number)
        finally:
            os._exit(code)

    def reap(self) -> None:
        """Notes who has ended, and when their places are to be filled again."""
        for place in self.places:
            if not place.pid:
                continue
            ended, status = os.waitpid(place.pid, os.WNOHANG)
            if not ended:
                continue
            lived = self.clock() - place.started
            place.early_deaths = place.early_deaths + 1 if lived < SOON_S else 0
            wait = BACKOFF_S[min(place.early_deaths, len(BACKOFF_S) - 1)]
            place.due = self.clock() + wait
            log.error("worker %d (pid %d) %s after %.1f s; another takes its place", place.number, place.pid,
                      spell(status), lived)  # fmt: skip
            self.died(place.pid)
            place.pid = 0

    def stop(self) -> None:
        """Has the workers drain and end; ends those that do not."""
        for place in self.places:
            if place.pid:
                with suppress(ProcessLookupError):
                    os.kill(place.pid, signal.SIGTERM)
        end = self.clock() + self.drain_s + GRACE_S
        while any(place.pid for place in self.places):
            for place in self.places:
                if place.pid and os.waitpid(place.pid, os.WNOHANG)[0]:
                    place.pid = 0
            if self.clock() >= end:
                for place in self.places:
                    if place.pid:
                        log.error("worker %d (pid %d) did not end in %g s", place.number, place.pid, self.drain_s)
                        os.kill(place.pid, signal.SIGKILL)
                end = float("inf")
            signal.sigtimedwait((signal.SIGCHLD,), 0.05)


def spell(status: int) -> str:
    """A wait status for people."""
    if os.WIFSIGNALED(status):
        return f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"
