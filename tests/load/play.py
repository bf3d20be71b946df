"""Short ways to play an open loop in a test, and the closed loop that it is held against."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp

from load.client import Exchange, OpenLoop
from load.connections import Connections
from load.doors import Door
from load.http1 import encode_post, parse_url
from load.outcome import Outcome, Planned, Run
from load.tally import Tally


@dataclass(frozen=True)
class Way:
    """A transport to a server: `request` makes one that is to be treated so, `log` asks the server what came."""

    door: Door[Any]
    request: Callable[[str], Any]
    log: Callable[[], Any]

    def loop(self, sink: Callable[[Outcome], None], connections: int = 64, grace: float = 5.0) -> OpenLoop[Any]:
        return OpenLoop(self.door.transport(connections), sink, grace=grace)

    async def play(
        self, how: str, times: Iterable[float], *, connections: int = 8, grace: float = 5.0
    ) -> tuple[list[Outcome], Run]:
        """Every outcome of a request at each time, in order of the time intended."""
        outcomes: list[Outcome] = []
        loop = self.loop(outcomes.append, connections, grace)
        run = await loop.run(Planned(float(at), self.request(how)) for at in times)
        return sorted(outcomes, key=lambda outcome: outcome.at), run

    async def closed(self, how: str, rate: float, count: int) -> list[float]:
        """As `closed_loop` has them."""
        latencies, ends = [], asyncio.Queue[float]()
        transport = self.door.transport(1)
        await transport.open(lambda exchange, now, answer, error: ends.put_nowait(now), 5.0)
        for _ in range(count):
            exchange = Exchange(Planned(0.0, self.request(how)), time.monotonic())
            transport.send(exchange)
            latencies.append(await ends.get() - exchange.dispatched)
            await asyncio.sleep(max(0.0, 1 / rate - latencies[-1]))
        await transport.close()
        return latencies


async def play(
    url: str, times: Iterable[float], *, connections: int = 64, grace: float = 5.0
) -> tuple[list[Outcome], Run]:
    """Every outcome of posting `{}` at each time, in order of the time intended."""
    target = parse_url(url)
    outcomes: list[Outcome] = []
    loop = OpenLoop(Connections(target, connections), outcomes.append, grace=grace)
    run = await loop.run(Planned(float(at), encode_post(target, b"{}")) for at in times)
    return sorted(outcomes, key=lambda outcome: outcome.at), run


def add_up(outcomes: Iterable[Outcome]) -> Tally:
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    return tally


async def closed_loop(url: str, rate: float, count: int) -> list[float]:
    """The latencies, from the sending, that one caller sees who waits for each answer before it asks again."""
    latencies = []
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            sent = time.monotonic()
            async with session.post(url, data=b"{}") as response:
                await response.read()
            latencies.append(time.monotonic() - sent)
            await asyncio.sleep(max(0.0, 1 / rate - latencies[-1]))
    return latencies
