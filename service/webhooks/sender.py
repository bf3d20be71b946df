"""Delivers messages: signed, at least once, tried again for a day with growing pauses, and then dead.

A delivery counts once a 2xx answer has come; the file goes after that, so a process that is killed in between has it
delivered twice, under the same id.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from msgspec.structs import replace

from service.webhooks.outbound import NotPublic, Refused, check_url, outbound, why
from service.webhooks.outbox import Message, Outbox
from service.webhooks.signature import headers

FIRST_S, FACTOR, LONGEST_S = 5.0, 4.0, 4 * 3600.0
"""The pause after the first attempt, how much longer each next one is, and the longest."""
JITTER = 0.3
TIMEOUT_S = 15.0
AT_ONCE = 16
LOOK_S = 1.0
GONE = 410
"""Whoever answers so wants no more of it."""

log = logging.getLogger(__name__)


class Undeliverable(Exception):
    """No later attempt would end otherwise."""


class Sender:
    """For one event loop, and one process of a deployment at a time. `counts`: attempts by outcome. `trust`: as
    `outbound` has it."""

    def __init__(
        self, outbox: Outbox, key: bytes | None, allowed: Collection[str], retry_s: float,
        counts: Counter[tuple[str, ...]], *, clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random, trust: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:  # fmt: skip
        self.outbox, self.key, self.allowed, self.retry_s, self.counts = outbox, key, allowed, retry_s, counts
        self.clock, self.chance, self.trust, self.resolver = clock, chance, trust, resolver

    async def run(self) -> None:
        """Until cancelled."""
        under_way: dict[str, asyncio.Task[None]] = {}
        try:
            async with outbound(self.allowed, TIMEOUT_S, self.trust, self.resolver) as session:
                while True:
                    try:
                        await self.look(session, under_way)
                    except OSError as error:
                        log.warning("webhooks wait: %s", error)
                    await asyncio.sleep(LOOK_S)
        finally:
            for task in under_way.values():
                task.cancel()
            await asyncio.gather(*under_way.values(), return_exceptions=True)

    async def look(self, session: Any, under_way: dict[str, asyncio.Task[None]]) -> None:
        """Begins those that are due."""
        now = self.clock()
        for name in [name for name, task in under_way.items() if task.done()]:
            if (error := under_way.pop(name).exception()) is not None:
                log.warning("webhook %s waits: %s", name, error)
        for message in await asyncio.to_thread(self.outbox.all, "pending"):
            if message.due <= now and message.id not in under_way and len(under_way) < AT_ONCE:
                under_way[message.id] = asyncio.create_task(self.attempt(session, message))

    async def attempt(self, session: Any, message: Message) -> None:
        """One attempt, and what comes of it on disk."""
        now = self.clock()
        attempts = message.attempts + 1
        try:
            await self.deliver(session, message)
        except Undeliverable as error:
            after = replace(message, attempts=attempts, state="dead", error=str(error))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            after = self.later(replace(message, attempts=attempts, error=why(error)), now)
        else:
            await asyncio.to_thread(self.outbox.remove, message.id)
            self.counts["delivered",] += 1
            return
        await asyncio.to_thread(self.outbox.write, after)
        self.counts["dead" if after.state == "dead" else "retried",] += 1
        if after.state == "dead":
            log.warning("webhook %s is given up: %s", after.id, after.error)
        elif after.error != message.error:
            log.warning("webhook %s is tried again: %s", after.id, after.error)

    def later(self, message: Message, now: float) -> Message:
        """The message as it stands after one more attempt that failed."""
        pause = min(FIRST_S * FACTOR ** min(message.attempts - 1, 20), LONGEST_S)
        due = now + pause * (1 - JITTER + 2 * JITTER * self.chance())
        if due > message.first_at + self.retry_s:
            return replace(message, state="dead")
        return replace(message, due=due)

    async def deliver(self, session: Any, message: Message) -> None:
        """Raises Undeliverable, or what a later attempt may do without."""
        if self.key is None:
            raise ValueError("no secret of webhooks is set")
        try:
            url = check_url(message.url, self.allowed)
        except Refused as error:
            raise Undeliverable(str(error)) from error
        body = message.body.encode()
        signed = {"Content-Type": "application/json", **headers(self.key, message.id, int(self.clock()), body)}
        try:
            async with session.post(url, data=body, headers=signed, allow_redirects=False) as answer:
                status = answer.status  # its body is nothing to us, and is not read
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, NotPublic):
                raise Undeliverable(str(error.os_error)) from error
            raise
        if status == GONE:
            raise Undeliverable(f"the receiver answered {status}")
        if not 200 <= status < 300:
            raise ValueError(
                f"the receiver answered {status}" + (", and redirects are refused" if status < 400 else "")
            )
