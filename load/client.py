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
from collections import deque
from collections.abc import Callable, Iterable

from load.errors import LoadError
from load.http1 import Answer, Connection, Target
from load.outcome import Outcome, Planned, Run
from load.pacer import Pacer, make_pacer

# After so many sends without a pause the loop reads answers before it goes on, even when it is behind.
BURST = 32


class _Exchange:
    """One request under way: `dispatched` and `sent` are moments of `time.monotonic()`."""

    __slots__ = ("dispatched", "planned", "sent")

    def __init__(self, planned: Planned, dispatched: float) -> None:
        self.planned, self.dispatched = planned, dispatched
        self.sent: float | None = None


class OpenLoop:
    """Plays one plan against one address on the running event loop. Use once.

    `sink` gets every outcome as it comes; it runs on the loop, so what it spends is lateness of the next request.
    """

    def __init__(self, target: Target, sink: Callable[[Outcome], None], *, connections: int, grace: float) -> None:
        """At most `connections` at a time; unanswered requests are given up `grace` seconds after the last sending."""
        self._target, self._sink = target, sink
        self._limit, self._grace = connections, grace
        self._idle: list[Connection] = []
        self._busy: dict[Connection, _Exchange] = {}
        self._queue: deque[_Exchange] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()
        self._all_dispatched = False
        self._opened = self._connect_failures = 0
        self._dispatched = self._finished = 0
        self._start = 0.0

    @property
    def dispatched(self) -> int:
        """How many requests have fallen due and been taken up so far."""
        return self._dispatched

    async def run(self, plan: Iterable[Planned], begin: Callable[[], float] = time.monotonic) -> Run:
        """Send everything in `plan` (in order of time; read one ahead, so it may be endless) and wait for the answers.

        `begin`, called when all is set, gives the moment of `time.monotonic()` from which the plan counts: now, or the
        one that several processes have agreed on. Raises LoadError when not even a first connection can be made.
        """
        pacer = make_pacer(asyncio.get_running_loop())
        try:
            await self._connect_first()
            self._start = begin()
            await self._dispatch_all(plan, pacer)
            await self._wait_for_answers()
            if self._finished != self._dispatched:  # the sink failed: the loop has logged where
                raise RuntimeError(f"{self._dispatched} requests went out, {self._finished} outcomes were taken")
            return Run(time.monotonic() - self._start, self._opened, self._connect_failures)
        finally:
            pacer.close()
            await self._close()

    async def _dispatch_all(self, plan: Iterable[Planned], pacer: Pacer) -> None:
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
            exchange = _Exchange(planned, now)
            if self._idle:
                self._send(self._idle.pop(), exchange)
            else:
                self._queue.append(exchange)
                self._grow()
        self._all_dispatched = True

    async def _wait_for_answers(self) -> None:
        self._check_settled()
        try:
            async with asyncio.timeout(self._grace):
                await self._settled.wait()
        except TimeoutError:
            for exchange in [*self._busy.values(), *self._queue]:
                self._finish(exchange, time.monotonic(), None, "unsent" if exchange.sent is None else "unanswered")

    def _check_settled(self) -> None:
        if self._all_dispatched and not self._busy and not self._queue:
            self._settled.set()

    def _send(self, connection: Connection, exchange: _Exchange) -> None:
        self._busy[connection] = exchange
        exchange.sent = time.monotonic()
        connection.send(exchange.planned.payload)

    def _finish(self, exchange: _Exchange, now: float, answer: Answer | None, error: str | None) -> None:
        due = self._start + exchange.planned.at
        since_sent = None if exchange.sent is None else now - exchange.sent
        at, label = exchange.planned.at, exchange.planned.label
        self._sink(Outcome(at, exchange.dispatched - due, now - due, since_sent, answer, error, label))
        self._finished += 1

    def _fail_next(self, reason: str) -> None:
        """A connection that never came to carry anything costs one waiting request; so no failure repeats for ever."""
        if self._queue:
            self._finish(self._queue.popleft(), time.monotonic(), None, reason)
            self._check_settled()

    # Connections: the most recently used idle one goes first, so that a few stay warm.

    async def _connect_first(self) -> None:
        try:
            async with asyncio.timeout(self._grace):
                await self._open()
        except OSError as error:  # TimeoutError is one too
            where = f"{self._target.host}:{self._target.port}"
            raise LoadError(f"cannot connect to {where}: {str(error) or 'no answer'}") from error

    async def _open(self) -> None:
        connection = Connection(self._on_answer, self._on_lost)
        tls = True if self._target.tls else None
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, self._target.host, self._target.port, ssl=tls)
        except asyncio.CancelledError:
            connection.close()
            raise
        self._opened += 1
        if connection.reusable:
            self._use(connection)
        else:
            self._fail_next("dropped")

    def _grow(self) -> None:
        """Open one more connection if a request waits that no connection under way will serve."""
        held = len(self._busy) + len(self._idle) + len(self._connecting)
        if len(self._queue) > len(self._connecting) and held < self._limit:
            task = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add(task)

    async def _connect(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await self._open()
        except OSError:
            self._connect_failures += 1
            self._fail_next("connect")
        finally:
            self._connecting.discard(task)
        self._grow()

    def _use(self, connection: Connection) -> None:
        if self._queue:
            self._send(connection, self._queue.popleft())
        else:
            self._idle.append(connection)

    def _on_answer(self, connection: Connection, answer: Answer) -> None:
        now, exchange = time.monotonic(), self._busy.pop(connection)
        if connection.reusable:
            self._use(connection)
        else:
            connection.close()
            self._grow()
        self._finish(exchange, now, answer, None)
        self._check_settled()

    def _on_lost(self, connection: Connection, reason: str) -> None:
        exchange = self._busy.pop(connection, None)
        if exchange is not None:
            self._finish(exchange, time.monotonic(), None, reason)
        elif connection in self._idle:
            self._idle.remove(connection)
        self._grow()
        self._check_settled()

    async def _close(self) -> None:
        for connection in [*self._idle, *self._busy]:
            connection.close()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        await asyncio.sleep(0)  # one turn of the loop, in which the aborted transports close
