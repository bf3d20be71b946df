"""Commands to one Redis-protocol server over one connection: written together, answered in order.

What the callers of one turn of the event loop ask leaves in a single write, and nobody waits for an earlier reply. The
protocol is RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/), parsed by hiredis. redis-py's own
pipeline costs four times the CPU for the same read (docs/performance.md), and the feature read is in every request.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import hiredis

from features.errors import FeatureStoreError, FeatureStoreTimeout, WrongType


def encode(*parts: bytes) -> bytes:
    """A command as RESP's array of bulk strings."""
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def hmget(fields: Sequence[bytes]) -> Callable[[bytes], bytes]:
    """key -> the HMGET of these fields of it, encoded: only the key differs from one to the next."""
    command = encode(b"HMGET", b"", *fields)
    head, tail = command[: command.index(b"$0\r\n")], command[command.index(b"$0\r\n") + 6 :]

    def of(key: bytes) -> bytes:
        return b"%b$%d\r\n%b\r\n%b" % (head, len(key), key, tail)

    return of


class Pending:
    """A command and who waits for its reply. `retried`: it may not be sent (again) after a lost connection."""

    __slots__ = ("command", "future", "retried", "sent_at")

    def __init__(self, command: bytes, future: asyncio.Future[Any]) -> None:
        self.command, self.future, self.retried, self.sent_at = command, future, False, 0.0


class Pipeline:
    """One connection, made when it is first needed and again after it was lost.

    `stall_s` is how long a reply, or the connection itself, may take before the connection is given up: a server that
    accepts and never answers would otherwise hold every later command behind it. A caller's own deadline is the
    caller's to keep. What a lost connection left unanswered is sent once more, on the next one.
    """

    def __init__(
        self, host: str, port: int, *, db: int = 0, username: str | None = None, password: str | None = None,
        ssl: bool = False, stall_s: float = 1.0,
    ) -> None:  # fmt: skip
        self.host, self.port, self.ssl, self.stall_s = host, port, ssl, stall_s
        self.greeting: list[bytes] = []
        if password is not None:
            user = [] if username is None else [username.encode()]
            self.greeting.append(encode(b"AUTH", *user, password.encode()))
        if db:
            self.greeting.append(encode(b"SELECT", b"%d" % db))
        self.queued: list[Pending] = []
        self.sent: deque[Pending] = deque()
        self.wire: Wire | None = None  # the connection, be it still greeting
        self.transport: asyncio.Transport | None = None  # it too, once commands may be written
        self.connecting: asyncio.Task[None] | None = None
        self.flushing = self.closed = False
        self.watch: asyncio.TimerHandle | None = None

    def execute(self, command: bytes, *, retry: bool = True) -> asyncio.Future[Any]:
        """The reply to an encoded command: bytes, int, None or a list of those. Call on the event loop.

        `retry`: whether it may be sent again where a lost connection leaves open if it was carried out. Fails with
        FeatureStoreError when the server answers with an error or cannot be reached.
        """
        loop = asyncio.get_running_loop()
        pending = Pending(command, loop.create_future())
        pending.retried = not retry
        self.queued.append(pending)
        if not self.flushing:
            self.flushing = True
            loop.call_soon(self._flush)
        return pending.future

    def twin(self) -> Pipeline:
        """Another connection to the same place."""
        it = Pipeline(self.host, self.port, ssl=self.ssl, stall_s=self.stall_s)
        it.greeting = self.greeting
        return it

    async def close(self) -> None:
        """Closes the connection; whoever still waits gets FeatureStoreError."""
        self.closed = True
        if self.connecting is not None:
            self.connecting.cancel()
            await asyncio.gather(self.connecting, return_exceptions=True)
        self._drop()
        self._fail(FeatureStoreError("the connection to Redis is closed"))
        await asyncio.sleep(0)  # the loop's turn in which the socket is closed

    def _drop(self) -> None:
        """Gives the connection up; what it still brings is nobody's."""
        wire, self.wire, self.transport = self.wire, None, None
        if wire is not None and wire.transport is not None:
            wire.transport.abort()

    def _flush(self) -> None:
        self.flushing = False
        if self.closed:
            self._fail(FeatureStoreError("the connection to Redis is closed"))
        elif self.transport is None:
            if self.connecting is None:
                self.connecting = asyncio.create_task(self._connect())
        else:
            self._write(self.transport)

    def _write(self, transport: asyncio.Transport) -> None:
        batch = [one for one in self.queued if not one.future.done()]
        self.queued.clear()
        if not batch:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        for one in batch:
            one.sent_at = now
        self.sent.extend(batch)
        transport.write(b"".join([one.command for one in batch]))
        if self.watch is None:
            self.watch = loop.call_later(self.stall_s, self._check)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        wire = self.wire = Wire(self)
        try:
            async with asyncio.timeout(self.stall_s):
                context = tls.create_default_context() if self.ssl else None
                transport, _ = await loop.create_connection(lambda: wire, self.host, self.port, ssl=context)
                greeted = [Pending(command, loop.create_future()) for command in self.greeting]
                for one in greeted:
                    one.retried, one.sent_at = True, loop.time()
                self.sent.extend(greeted)
                transport.write(b"".join(self.greeting))
                for one in greeted:
                    await one.future
        except TimeoutError:
            self._drop()
            self._fail(FeatureStoreTimeout(f"Redis did not let us in within {self.stall_s:g} s"))
        except (OSError, FeatureStoreError) as error:
            self._drop()
            self._fail(FeatureStoreError(f"Redis at {self.host}:{self.port}: {error}"))
        else:
            self.transport = transport
            self._write(transport)
        finally:
            self.connecting = None

    def _check(self) -> None:
        """Gives the connection up when its oldest reply is overdue; a reply in time moves the next check."""
        loop = asyncio.get_running_loop()
        self.watch = None
        if not self.sent:
            return
        due = self.sent[0].sent_at + self.stall_s
        if loop.time() < due:
            self.watch = loop.call_at(due, self._check)
            return
        overdue, self.sent = self.sent, deque()
        self._drop()
        settle(overdue, FeatureStoreTimeout(f"Redis did not answer in {self.stall_s:g} s"))

    def _fail(self, error: FeatureStoreError) -> None:
        everyone = [*self.sent, *self.queued]
        self.sent.clear()
        self.queued.clear()
        settle(everyone, error)

    def answered(self, reply: Any) -> None:
        """One reply, for the oldest command that has none."""
        future = self.sent.popleft().future
        if future.done():
            return
        if isinstance(reply, hiredis.HiredisError):
            said = f"Redis: {reply}"  # a script's refusal has the word wherever the server's version puts it
            future.set_exception(WrongType(said) if "WRONGTYPE" in said else FeatureStoreError(said))
        else:
            future.set_result(reply)

    def lost(self, error: Exception | None) -> None:
        """The connection is gone: what it left unanswered goes out once more, on the next one."""
        self.wire = self.transport = None
        unanswered, self.sent = list(self.sent), deque()
        again = [one for one in unanswered if not one.retried and not one.future.done()]
        settle((one for one in unanswered if one.retried), FeatureStoreError(f"Redis closed the connection: {error}"))
        for one in again:
            one.retried = True
        self.queued[:0] = again
        if self.queued and self.connecting is None:
            self._flush()


class Wire(asyncio.Protocol):
    """What one TCP connection hands back."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.reader = hiredis.Reader()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        reader, pipeline = self.reader, self.pipeline
        try:
            reader.feed(data)
            while pipeline.wire is self and (reply := reader.gets()) is not False:
                pipeline.answered(reply)
        except (hiredis.ProtocolError, IndexError):  # not RESP, or more replies than commands
            assert self.transport is not None
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self.pipeline.wire is self:
            self.pipeline.lost(error)


def settle(pending: Any, error: FeatureStoreError) -> None:
    for one in pending:
        if not one.future.done():
            one.future.set_exception(error)


async def together(*awaitables: Awaitable[Any]) -> list[Any]:
    """All results. A failure is raised once nothing is under way any more that could meddle with a second try."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for one in results:
        if isinstance(one, BaseException):
            raise one
    return results
