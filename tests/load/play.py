"""Short ways to play an open loop in a test, and the closed loop that it is held against."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import aiohttp

from load.client import OpenLoop
from load.http1 import encode_post, parse_url
from load.outcome import Outcome, Planned, Run
from load.tally import Tally


async def play(
    url: str, times: Iterable[float], *, connections: int = 64, grace: float = 5.0
) -> tuple[list[Outcome], Run]:
    """Every outcome of posting `{}` at each time, in order of the time intended."""
    target = parse_url(url)
    outcomes: list[Outcome] = []
    loop = OpenLoop(target, outcomes.append, connections=connections, grace=grace)
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
