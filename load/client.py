"""An open-loop client: it sends each request at its intended time, whatever the server does.

A client that waits for an answer before it sends the next request stops asking just when the server is slow, and so
leaves out the very requests that would have waited ("coordinated omission", Gil Tene, *How NOT to Measure Latency*).
Here the clock starts at the intended time. What then delays a request is told apart:

    intended --lateness--> dispatched --queueing--> sent --server and network--> answered
             the client's              every connection
             own fault                 waits for the server

Latency is the whole of it. Queueing is the server's doing as long as `connections` is as many as callers would open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Generic, Protocol

from load.outcome import Answered, Outcome, Payload, Planned, Run
from load.pacer import Pacer, make_pacer

# After so many sends without a pause the loop reads answers before it goes on, even when it is behind.
BURST = 32


class Exchange(Generic[Payload]):
    """One request under way: `dispatched` and `sent` (None: not yet) are moments of `time.monotonic()`."""

    __slots__ = ("dispatched", "planned", "sent")

    def __init__(self, planned: Planned[Payload], dispatched: float) -> None:
        self.planned, self.dispatched = planned, dispatched
        self.sent: float | None = None


Finish = Callable[[Exchange[Payload], float, Answered | None, str | None], None]
"""Told once of each exchange: the moment of its end, and the answer, or why there is none (see Outcome)."""


class Transport(Protocol[Payload]):
    """Carries requests to one address. `opened` and `connect_failures` count its connections so far."""

    opened: int
    connect_failures: int

    async def open(self, finish: Finish[Payload], patience: float) -> None:
        """Connect, within so many seconds. Raises LoadError where that fails."""

    def send(self, exchange: Exchange[Payload]) -> None:
        """Send it now, or as soon as a connection is free, and set `sent`. `finish` is called some time later."""

    async def close(self) -> None:
        """End at once, whatever is under way, and call `finish` no more."""


class OpenLoop(Generic[Payload]):
    """Plays one plan by one transport on the running event loop. Use once.

    `sink` gets every outcome as it comes; it runs on the loop, so what it spends is lateness of the next request.
    """

    def __init__(self, transport: Transport[Payload], sink: Callable[[Outcome], None], *, grace: float) -> None:
        """Unanswered requests are given up `grace` seconds after the last sending."""
        self._transport, self._sink, self._grace = transport, sink, grace
        self._under_way: dict[Exchange[Payload], None] = {}
        self._settled = asyncio.Event()
        self._all_dispatched = False
        self._dispatched = self._finished = 0
        self._start = 0.0

    @property
    def dispatched(self) -> int:
        """How many requests have fallen due and been taken up so far."""
        return self._dispatched

    async def run(self, plan: Iterable[Planned[Payload]], begin: Callable[[], float] = time.monotonic) -> Run:
        """Send everything in `plan` (in order of time; read one ahead, so it may be endless) and wait for the answers.

        `begin`, called when all is set, gives the moment of `time.monotonic()` from which the plan counts: now, or the
        one that several processes have agreed on. Raises LoadError when not even a first connection can be made.
        """
        pacer = make_pacer(asyncio.get_running_loop())
        try:
            await self._transport.open(self._finish, self._grace)
            self._start = begin()
            await self._dispatch_all(plan, pacer)
            await self._wait_for_answers()
            if self._finished != self._dispatched:  # the sink failed: the loop has logged where
                raise RuntimeError(f"{self._dispatched} requests went out, {self._finished} outcomes were taken")
            seconds = time.monotonic() - self._start
            return Run(seconds, self._transport.opened, self._transport.connect_failures)
        finally:
            pacer.close()
            await self._transport.close()

    async def _dispatch_all(self, plan: Iterable[Planned[Payload]], pacer: Pacer) -> None:
        burst = 0
        for planned in plan:
            due = self._start + planned.at
            now = time.monotonic()
            if now < due:
                await pacer.until(due)
                now, burst = time.monotonic(), 0
            elif (burst := burst + 1) == BURST:
                await asyncio.sleep(0)
                now, burst = time.monotonic(), 0
            self._dispatched += 1
            exchange = Exchange(planned, now)
            self._under_way[exchange] = None
            self._transport.send(exchange)
        self._all_dispatched = True

    async def _wait_for_answers(self) -> None:
        self._check_settled()
        try:
            async with asyncio.timeout(self._grace):
                await self._settled.wait()
        except TimeoutError:
            for exchange in list(self._under_way):
                self._finish(exchange, time.monotonic(), None, "unsent" if exchange.sent is None else "unanswered")

    def _check_settled(self) -> None:
        if self._all_dispatched and not self._under_way:
            self._settled.set()

    def _finish(self, exchange: Exchange[Payload], now: float, answer: Answered | None, error: str | None) -> None:
        del self._under_way[exchange]
        due = self._start + exchange.planned.at
        since_sent = None if exchange.sent is None else now - exchange.sent
        at, label = exchange.planned.at, exchange.planned.label
        self._sink(Outcome(at, exchange.dispatched - due, now - due, since_sent, answer, error, label))
        self._finished += 1
        self._check_settled()
