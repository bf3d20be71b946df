"""The engine in this process, in a thread or on the event loop (`ranking.desk` is its queue)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

import torch

from ranking.batch import Answer, Query
from ranking.desk import Desk, settle
from ranking.index import one_thread
from ranking.lanes import Job
from ranking.live import Change


class LocalEngine:
    """Batches queries for one thread, so that the event loop goes on meanwhile where there is a core for it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.wake = threading.Condition()
        self.thread = threading.Thread(target=self._run, name="endcap-engine", daemon=True)

    def start(self) -> None:
        """Starts the thread. Call on the event loop that will submit."""
        self.desk.loop = asyncio.get_running_loop()
        self.thread.start()

    async def stop(self) -> None:
        """Answers what has queued, refuses the rest, and ends the thread."""
        with self.wake:
            self.desk.stopping = True
            self.wake.notify()
        if self.thread.is_alive():
            await asyncio.to_thread(self.thread.join)

    async def submit(self, version: str, query: Query, *, expires_at: float = inf, bulk: bool = False) -> Answer:
        with self.wake:
            future = self.desk.enqueue(version, query, expires_at, bulk)
            self.wake.notify()
        return await future

    def wait_s(self) -> float:
        return self.desk.wait_s()

    def change(self, changes: Sequence[Change]) -> None:
        """Applies item changes to every version, before the next batch."""
        with self.wake:
            self.desk.between.append(partial(self.desk.apply, changes))
            self.wake.notify()

    async def do(self, what: Callable[[Desk], None], *, bulk: bool = False) -> None:
        """Does it between two batches, on the thread that answers; `bulk`: once no shopper waits. Raises what it
        raises."""
        with self.wake:
            done = self.desk.later(partial(what, self.desk), bulk)
            self.wake.notify()
        await done

    def _run(self) -> None:
        hold_to_one_core()
        desk, loop = self.desk, self.desk.loop
        assert loop is not None
        while jobs := self._next_batch(loop):
            loop.call_soon_threadsafe(settle, desk.answer(jobs))

    def _next_batch(self, loop: asyncio.AbstractEventLoop) -> list[Job]:
        """The next jobs; empty only when the engine stops. Item changes come first."""
        desk = self.desk
        while True:
            with self.wake:
                while not (desk.waiting or desk.between or desk.spare or desk.stopping):
                    self.wake.wait()
            desk.do_between()
            desk.do_spare()
            with self.wake:
                if not desk.waiting and (desk.spare or not desk.stopping):
                    continue
                if not desk.waiting:
                    return []
                taken, left = desk.take()
            if left:
                loop.call_soon_threadsafe(settle, left)
            if taken:
                return taken


class InlineEngine:
    """Batches queries on the event loop itself: what has queued in one turn of it is the next batch.

    Where every core has a worker of its own a thread would only take turns with the loop, and each turn costs.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk, self.due = desk, False

    def start(self) -> None:
        """Call on the event loop that will submit."""
        self.desk.loop = asyncio.get_running_loop()
        hold_to_one_core()

    async def stop(self) -> None:
        """Answers what has queued, and refuses the rest."""
        self.desk.stopping = True
        while self.due:  # noqa: ASYNC110 - what is waited for is the loop's own next turn
            await asyncio.sleep(0)

    async def submit(self, version: str, query: Query, *, expires_at: float = inf, bulk: bool = False) -> Answer:
        future = self.desk.enqueue(version, query, expires_at, bulk)
        self._see_to_it()
        return await future

    def wait_s(self) -> float:
        return self.desk.wait_s()

    def change(self, changes: Sequence[Change]) -> None:
        """Applies item changes to every version, before the next batch."""
        self.desk.between.append(partial(self.desk.apply, changes))
        self._see_to_it()

    async def do(self, what: Callable[[Desk], None], *, bulk: bool = False) -> None:
        """Does it between two batches; `bulk`: once no shopper waits. Raises what it raises."""
        done = self.desk.later(partial(what, self.desk), bulk)
        self._see_to_it()
        await done

    def _see_to_it(self) -> None:
        if not self.due and self.desk.loop is not None:
            self.due = True
            self.desk.loop.call_soon(self._let_others)

    def _let_others(self) -> None:
        """Whatever has come meanwhile goes first: it may be refused, or ride along."""
        assert self.desk.loop is not None
        self.desk.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """One batch. Whatever else the loop has to do comes before the next one."""
        self.due = False
        self.desk.do_between()
        self.desk.do_spare()
        taken, left = self.desk.take()
        settle(left)
        settle(self.desk.answer(taken))
        if self.desk.waiting or self.desk.spare:
            self._see_to_it()


def hold_to_one_core() -> None:
    """For the thread that answers."""
    torch.set_num_threads(1)
    one_thread()
