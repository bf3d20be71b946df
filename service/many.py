"""Many shoppers in one request: a few at a time, each on their own, and none before those who wait.

Each is a request of the request path, of priority `bulk`. A mistake in one, or its failure, is the answer to that one.
No more than `in_flight` are being answered at a time, and no more than about as many answers wait to be taken.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Annotated, Protocol

from msgspec import Meta, Struct

from service.call import Call
from service.trace import Trace
from service.turns import Ask, Request, Turns
from service.wire import Recommendation

FLUSH_S, FLUSH_ROWS = 0.05, 64
"""How long an answer but the first waits for others to go out with, and with how many at the most."""

log = logging.getLogger(__name__)


class BatchConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Many users in one request: how many, in how large a body; how many such requests a process answers at a time, and
    how many users of each; how long one may take, and its client not read."""

    max_users: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 16 << 20
    at_once: Annotated[int, Meta(ge=1)] = 4
    in_flight: Annotated[int, Meta(ge=1, le=1000)] = 2
    timeout_s: Annotated[float, Meta(gt=0)] = 300.0
    write_timeout_s: Annotated[float, Meta(gt=0)] = 10.0


class Rows(Protocol):
    """The requests of a batch, each read when its turn comes."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> Request:
        """Raises MalformedBody or InvalidRequest."""
        ...


@dataclass(frozen=True, slots=True)
class Done:
    """What became of the request at `index`. `user_id` is None where it has none, or cannot be read."""

    index: int
    user_id: str | None
    outcome: Recommendation | Exception


class Many:
    """Answers the rows of one batch. `room`: whether one more would keep nobody out; `told` is told of each answer.
    `each_s`: the most that one of them may take."""

    def __init__(
        self, ask: Ask, room: Callable[[], bool], told: Callable[[Recommendation, Trace], None], config: BatchConfig,
        clock: Callable[[], float] = time.perf_counter, each_s: float = inf,
    ) -> None:  # fmt: skip
        self.ask, self.told, self.config, self.clock, self.each_s = ask, told, config, clock, each_s
        self.turns = Turns(room, clock)

    async def answer(self, rows: Rows, call: Call, write: Callable[[list[Done]], Awaitable[None]]) -> None:
        """Has `write` take every outcome, in the order in which they are there. Raises what `write` raises, and ends
        what is under way when it does. `call.timeout_s` is for all of them; what is not answered by then never is."""
        within_s = self.config.timeout_s if call.timeout_s is None else min(call.timeout_s, self.config.timeout_s)
        until, left = self.clock() + within_s, len(rows)
        places, done = iter(range(left)), asyncio.Queue[Done](self.config.in_flight)
        workers = [
            asyncio.create_task(self.work(rows, places, call, until, done))
            for _ in range(min(self.config.in_flight, left))
        ]
        most = 1  # the first does not wait for company: somebody may be watching
        try:
            while left:
                found = await gathered(done, min(left, most))
                left, most = left - len(found), FLUSH_ROWS
                await write(found)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def work(
        self, rows: Rows, places: Iterator[int], call: Call, until: float, done: asyncio.Queue[Done]
    ) -> None:
        """Takes one place after the other."""
        for place in places:
            await done.put(await self.one(rows, place, call, until))

    async def one(self, rows: Rows, place: int, call: Call, until: float) -> Done:
        user_id = None
        try:
            request = rows[place]
            user_id = request.user_id
            return Done(place, user_id, await self.asked(request, call, until))
        except Exception as error:  # noqa: BLE001 - it is the answer to this one
            return Done(place, user_id, error)

    async def asked(self, request: Request, call: Call, until: float) -> Recommendation:
        trace = Trace()
        answer = await self.turns.answer(self.ask, request, call, until, self.each_s, trace)
        self.told(answer, trace)
        return answer


async def gathered(done: asyncio.Queue[Done], most: int) -> list[Done]:
    """The next outcome, and what others come within FLUSH_S, up to `most`."""
    found = [await done.get()]
    ends = asyncio.get_running_loop().time() + FLUSH_S
    while len(found) < most:
        try:
            found.append(done.get_nowait())
        except asyncio.QueueEmpty:
            try:
                async with asyncio.timeout_at(ends):
                    found.append(await done.get())
            except TimeoutError:
                break
    return found
