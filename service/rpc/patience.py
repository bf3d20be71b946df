"""How long a client is waited for: to send what it has begun, to take what is sent to it, and while the service stops.

gRPC's own limits are of connections. A connection that answers pings may still carry a call on which nothing comes, or
whose answers nobody reads; each would keep what it holds for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from ranking.errors import EngineStopped
from service.errors import DeadlineExceeded, MalformedBody


class Patience:
    """`idle_s`: how long a stream may go without a message; `stall_s`: how long a call's only message, the next of many
    events, or the room for a reply may take. For one event loop."""

    def __init__(self, idle_s: float, stall_s: float) -> None:
        self.idle_s, self.stall_s = idle_s, stall_s
        self.draining = asyncio.Event()
        self.waiting: dict[asyncio.Timeout, float] = {}
        self.timer: asyncio.TimerHandle | None = None

    async def read(self, context: Any, seconds: float) -> Any:
        """The next message of a call; None when it has sent all. Raises DeadlineExceeded or EngineStopped."""
        scope = asyncio.timeout(0 if self.draining.is_set() else None)
        self.wait(scope, seconds)
        try:
            async with scope:
                message = await context.read()
        except TimeoutError as error:
            if self.draining.is_set():
                raise EngineStopped("the service is shutting down") from error
            raise DeadlineExceeded(f"no message arrived in {seconds:g} s") from error
        finally:
            self.waiting.pop(scope, None)
        return None if message is grpc.aio.EOF else message

    def wait(self, scope: asyncio.Timeout, seconds: float) -> None:
        """Has a scope end in so long. One timer serves all of them: each its own is most of what a read costs."""
        until = self.waiting[scope] = asyncio.get_running_loop().time() + seconds
        if self.timer is None or until < self.timer.when():
            self.look_at(until)

    def look_at(self, when: float) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_at(when, self.look)

    def look(self) -> None:
        """Ends what has waited for long enough."""
        now, self.timer = asyncio.get_running_loop().time(), None
        for scope in [scope for scope, until in self.waiting.items() if until <= now]:
            del self.waiting[scope]
            scope.reschedule(now)
        if self.waiting:
            self.look_at(min(self.waiting.values()))

    async def only(self, context: Any) -> bytes:
        """The only message of a call. Raises what `read` raises, and MalformedBody where not all of it came."""
        data: bytes | None = await self.read(context, self.stall_s)
        if data is None:
            raise MalformedBody("no whole message came")
        return data

    def writer(self, context: Any) -> Writer:
        return Writer(context, self.stall_s)

    def drain(self) -> None:
        """Nothing more is waited for; what has come is still answered."""
        self.draining.set()
        while self.waiting:
            scope, _ = self.waiting.popitem()
            scope.reschedule(asyncio.get_running_loop().time())


class Writer:
    """Sends the messages of one call, one at a time, from however many tasks."""

    def __init__(self, context: Any, stall_s: float) -> None:
        self.context, self.stall_s = context, stall_s
        self.lock = asyncio.Lock()
        self.given_up = False

    async def write(self, message: bytes) -> None:
        """Returns once the client's window had room for it. Raises DeadlineExceeded where that took too long: of what
        nobody reads so much is kept, and no more."""
        async with self.lock:
            if not self.given_up:  # else what is under way stays so, and gRPC takes no other
                try:
                    async with asyncio.timeout(self.stall_s):
                        await self.context.write(message)
                    return
                except grpc.aio.InternalError as error:
                    raise asyncio.CancelledError from error  # the client has gone, as gRPC is about to tell this call
                except TimeoutError:
                    self.given_up = True
            raise DeadlineExceeded(f"a reply was not taken in {self.stall_s:g} s")
