"""Somebody whom webhooks are sent to, and a sender that is asked to look once at a time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from service.webhooks.outbound import outbound
from service.webhooks.outbox import Message, Outbox
from service.webhooks.sender import Sender
from service.webhooks.signature import secret_of

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""The one of the specification's test vector."""
OPEN = frozenset(["127.0.0.1"])


class Receiver:
    """A server that writes down what it gets and answers with what it is told to. `asked_for`: the names that clients
    said in TLS."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[web.Response] = []
        self.asked_for: list[str | None] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def take(self, request: web.Request) -> web.Response:
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return self.answers.pop(0) if self.answers else web.Response(status=204)

    @asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
        """On a free port of 127.0.0.1, with a certificate or without TLS."""
        app = web.Application()
        app.router.add_route("*", "/{any:.*}", self.take)
        if tls is not None:
            tls.sni_callback = lambda _, name, __: self.asked_for.append(name)
        run = web.AppRunner(app)
        await run.setup()
        await web.TCPSite(run, "127.0.0.1", 0, ssl_context=tls).start()
        self.port = run.addresses[0][1]
        yield self
        await run.cleanup()


class Names(AbstractResolver):
    """A resolver that says one address after another."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=one, port=port, family=socket.AF_INET, proto=0, flags=0) for one in found
        ]

    async def close(self) -> None:
        pass


def outbox_of(folder: Path, *messages: Message) -> Outbox:
    outbox = Outbox(folder)
    for one in messages:
        outbox.write(one)
    return outbox


def message(url: str, name: str = "msg_1", **changes: Any) -> Message:
    return msgspec.structs.replace(Message(name, url, '{"type":"job.succeeded"}', 0.0, 0.0), **changes)


class Sending:
    """A sender whose clock is ours, asked to look once at a time."""

    def __init__(
        self, outbox: Outbox, allowed: frozenset[str] = OPEN, resolver: AbstractResolver | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.now, self.counts = 0.0, Counter[tuple[str, ...]]()
        self.resolver, self.allowed, self.trust = resolver, allowed, trust
        self.sender = Sender(
            outbox, secret_of(SECRET), allowed, 86400.0, self.counts, clock=lambda: self.now, chance=lambda: 0.5
        )

    async def look(self) -> None:
        under_way: dict[str, asyncio.Task[None]] = {}
        async with outbound(self.allowed, 5.0, self.trust, self.resolver) as session:
            await self.sender.look(session, under_way)
            await asyncio.gather(*under_way.values())
