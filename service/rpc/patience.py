"""How long a client is waited for: to send what it has begun, to take what is sent to it, and while the service stops.

gRPC's own limits are of connections. A connection that answers pings may still carry a call on which nothing comes, or
whose answers nobody reads; each would keep what it holds for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from ranking.errors import EngineStopped
from service.errors import DeadlineExceeded


class Patience:
    """`idle_s`: how long a stream may go without a message; `stall_s`: how long a first message, or the room for one of
    ours, may take. For one event loop."""

    def __init__(self, idle_s: float, stall_s: float) -> None:
        self.idle_s, self.stall_s = idle_s, stall_s
        self.draining = asyncio.Event()
        self.waiting: set[asyncio.Timeout] = set()

    async def read(self, context: Any, seconds: float) -> Any:
        """The next message of a call; None when it has sent all. Raises DeadlineExceeded or EngineStopped."""
        scope = asyncio.timeout(0 if self.draining.is_set() else seconds)
        self.waiting.add(scope)
        try:
            async with scope:
                message = await context.read()
        except TimeoutError as error:
            if self.draining.is_set():
                raise EngineStopped("the service is shutting down") from error
            raise DeadlineExceeded(f"no message arrived in {seconds:g} s") from error
        finally:
            self.waiting.discard(scope)
        return None if message is grpc.aio.EOF else message

    async def write(self, context: Any, message: Any) -> None:
        """Sends a message, once the client's window has room for it. Raises DeadlineExceeded where that takes too long:
        so much of what nobody reads is kept, and no more."""
        try:
            async with asyncio.timeout(self.stall_s):
                await context.write(message)
        except TimeoutError as error:
            raise DeadlineExceeded(f"a reply was not taken in {self.stall_s:g} s") from error

    def drain(self) -> None:
        """Nothing more is waited for; what has come is still answered."""
        self.draining.set()
        for scope in self.waiting:
            scope.reschedule(asyncio.get_running_loop().time())
