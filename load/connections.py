"""HTTP's transport: as many keep-alive connections as are needed, up to a limit; what finds none free waits."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from load.client import Exchange, Finish
from load.errors import LoadError
from load.http1 import Answer, Connection, Target


class Connections:
    """See Transport. The most recently used idle connection goes first, so that a few stay warm."""

    def __init__(self, target: Target, limit: int) -> None:
        """At most `limit` at a time."""
        self._target, self._limit = target, limit
        self._finish: Finish[bytes]
        self._idle: list[Connection] = []
        self._busy: dict[Connection, Exchange[bytes]] = {}
        self._queue: deque[Exchange[bytes]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self.opened = self.connect_failures = 0

    async def open(self, finish: Finish[bytes], patience: float) -> None:
        """See Transport: one connection."""
        self._finish = finish
        try:
            async with asyncio.timeout(patience):
                await self._open()
        except OSError as error:  # TimeoutError is one too
            where = f"{self._target.host}:{self._target.port}"
            raise LoadError(f"cannot connect to {where}: {str(error) or 'no answer'}") from error

    def send(self, exchange: Exchange[bytes]) -> None:
        """See Transport."""
        if self._idle:
            self._send_on(self._idle.pop(), exchange)
        else:
            self._queue.append(exchange)
            self._grow()

    async def close(self) -> None:
        """See Transport."""
        self._queue.clear()
        for connection in [*self._idle, *self._busy]:
            connection.close()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        await asyncio.sleep(0)  # one turn of the loop, in which the aborted transports close

    def _send_on(self, connection: Connection, exchange: Exchange[bytes]) -> None:
        self._busy[connection] = exchange
        exchange.sent = time.monotonic()
        connection.send(exchange.planned.payload)

    def _fail_next(self, reason: str) -> None:
        """A connection that never came to carry anything costs one waiting request; so no failure repeats for ever."""
        if self._queue:
            self._finish(self._queue.popleft(), time.monotonic(), None, reason)

    async def _open(self) -> None:
        connection = Connection(self._on_answer, self._on_lost)
        tls = True if self._target.tls else None
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, self._target.host, self._target.port, ssl=tls)
        except asyncio.CancelledError:
            connection.close()
            raise
        self.opened += 1
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
            self.connect_failures += 1
            self._fail_next("connect")
        finally:
            self._connecting.discard(task)
        self._grow()

    def _use(self, connection: Connection) -> None:
        if self._queue:
            self._send_on(connection, self._queue.popleft())
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

    def _on_lost(self, connection: Connection, reason: str) -> None:
        exchange = self._busy.pop(connection, None)
        if exchange is not None:
            self._finish(exchange, time.monotonic(), None, reason)
        elif connection in self._idle:
            self._idle.remove(connection)
        self._grow()
