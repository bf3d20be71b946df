"""How long a connection waits for a client that does nothing. aiohttp waits without end for one that does not take its
answer, and for the rest of a request's head as long as for the next request."""

from __future__ import annotations

import asyncio

from aiohttp import web

HEAD_S = 5.0
"""In which a request's head comes, from its first bytes on."""
TAKE_S = 20.0
"""A client that takes nothing of what waits for it in that time is closed."""


class Patient(web.RequestHandler):
    """A connection of aiohttp's that ends where its client does nothing. What waits for a client meanwhile is bounded:
    its transport has whoever writes wait."""

    def __init__(self, manager: web.Server, **options: object) -> None:
        super().__init__(manager, **options)  # type: ignore[arg-type]
        self.late: asyncio.TimerHandle | None = None
        self.taking: asyncio.TimerHandle | None = None

    def half_way(self) -> int | None:
        """Which request has come in part, by number; None where none has."""
        raise NotImplementedError

    def at_rest(self) -> bool:
        """Whether aiohttp waits for a request, and for no rest of one's body."""
        return self._waiter is not None and not self._waiter.done() and not self._messages

    def watch_head(self) -> None:
        """To be called when something has come."""
        if self.late is None and (which := self.half_way()) is not None:
            self.late = self._loop.call_later(HEAD_S, self.look_at_head, which)

    def look_at_head(self, which: int) -> None:
        self.late = None
        if self.half_way() == which and self.at_rest():
            self.force_close()
        else:
            self.watch_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.watch_taking(self.transport)

    def watch_taking(self, transport: asyncio.Transport | None) -> None:
        """Of a transport that is full, or closing with something left in it."""
        if self.taking is None and transport is not None and (left := transport.get_write_buffer_size()):
            self.taking = self._loop.call_later(TAKE_S, self.look_at_taking, transport, left)

    def look_at_taking(self, transport: asyncio.Transport, before: int) -> None:
        self.taking = None
        if transport.get_write_buffer_size() >= before:
            transport.abort()
        elif self.writing_paused or transport.is_closing():
            self.watch_taking(transport)

    def force_close(self) -> None:
        transport = self.transport
        super().force_close()
        self.watch_taking(transport)

    async def start(self) -> None:
        transport = self.transport
        await super().start()
        if transport is not None and transport.is_closing():
            self.watch_taking(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        for one in (self.late, self.taking):
            if one is not None:
                one.cancel()
