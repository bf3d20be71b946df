"""Requests for which nobody waits, and which therefore wait for the gate: users of a batch, bulk ones of a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from service.call import Call
from service.errors import DeadlineExceeded, Overloaded
from service.trace import Trace
from service.wire import RankRequest, Recommendation, RecommendRequest

NO_ROOM_S = 0.01
"""How often is looked whether there is room again."""

Request = RecommendRequest | RankRequest
Ask = Callable[[Any, Trace, Call], Awaitable[Recommendation]]


class Turns:
    """One after the other, in the order in which they came. `room`: whether one more would keep nobody out. For one
    event loop."""

    def __init__(self, room: Callable[[], bool], clock: Callable[[], float] = time.perf_counter) -> None:
        self.room, self.clock = room, clock
        self.looking, self.again = asyncio.Lock(), asyncio.Event()

    async def answer(
        self, ask: Ask, request: Request, call: Call, until: float, each_s: float, trace: Trace
    ) -> Recommendation:
        """What `ask` says, asked as a patient bulk request when there is room. From then on `trace` counts, and it may
        take `each_s`. Raises what `ask` raises, and DeadlineExceeded where no turn came by `until`, of `clock`."""
        while True:
            await self.turn(until)
            trace.restart()
            left = Call(min(until - self.clock(), each_s), True, call.after, patient=True)
            try:
                return await ask(request, trace, left)
            except Overloaded:
                await asyncio.sleep(NO_ROOM_S)

    async def turn(self, until: float) -> None:
        """Returns once there is room. Raises DeadlineExceeded where there is none in time."""
        if self.looking.locked() or not self.room():
            async with self.looking:
                while not self.room() and self.clock() < until:
                    await self.pause()
        if self.clock() >= until:
            raise DeadlineExceeded("there was no room for it in the time that it had; it was not asked")

    async def pause(self) -> None:
        """Until it is worth looking again."""
        self.again.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(NO_ROOM_S):
                await self.again.wait()

    def look(self) -> None:
        """Whoever waits looks now: a place has become free."""
        self.again.set()
