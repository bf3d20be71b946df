"""What comes in: events of shoppers, and changes of items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec
from aiohttp import web

from service.accept import JSON, NDJSON, PROTOBUF
from service.errors import DeadlineExceeded, MalformedBody, NotReady
from service.events import Row
from service.http.protobuf import answer_type, read_events, write
from service.http.respond import BODY_TIMEOUT_S, body, body_type
from service.wire import Accepted, ItemsAccepted


class Observer(Protocol):
    """Told of every body of events that was taken in."""

    def events_taken(self, taken: Accepted) -> None: ...

    def formatted(self, endpoint: str, body: str, answer: str) -> None: ...


class EventDoor(Protocol):
    """Takes in bodies of events (`service.events`)."""

    async def one_body(self, body: bytes) -> Accepted: ...

    async def lines(self, chunks: AsyncIterator[bytes]) -> Accepted: ...

    async def rows(self, rows: AsyncIterator[Row]) -> Accepted: ...

    async def some(self, rows: Sequence[Row]) -> Accepted: ...


class ItemDoor(Protocol):
    """Takes in bodies of item changes (`service.items`)."""

    async def one_body(self, body: bytes) -> ItemsAccepted: ...


class IntakeApi:
    """`POST /v1/events` and `/v1/items`. The doors are set once the store and the models are known."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.events: EventDoor | None = None
        self.items: ItemDoor | None = None

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/events", self.take_events)
        app.router.add_post("/v1/items", self.take_items)

    async def take_events(self, request: web.Request) -> web.Response:
        if self.events is None:
            raise NotReady("the feature store is not known yet")
        kind = body_type(request, JSON, NDJSON, PROTOBUF)
        answer = answer_type(request, kind)
        if kind == NDJSON:
            taken = await self.events.lines(chunks(request))
        elif kind == JSON:
            taken = await self.events.one_body(await body(request))
        else:
            taken = await self.events.some(read_events(await body(request, PROTOBUF, empty=True)))
        self.observer.events_taken(taken)
        if PROTOBUF in (kind, answer):
            self.observer.formatted(request.path, kind, answer)
        return accepted(taken) if answer == JSON else web.Response(body=write(taken), status=202, content_type=PROTOBUF)

    async def take_items(self, request: web.Request) -> web.Response:
        if self.items is None:
            raise NotReady("the model is being loaded")
        return accepted(await self.items.one_body(await body(request)))


def accepted(taken: Accepted | ItemsAccepted) -> web.Response:
    return web.Response(body=msgspec.json.encode(taken), status=202, content_type="application/json")


async def chunks(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises DeadlineExceeded when it stalls, MalformedBody when it cannot be read."""
    while True:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                chunk = await request.content.readany()
        except web.RequestPayloadError as error:
            raise MalformedBody(f"the body cannot be read: {' '.join(str(error).split())[:200]}") from error
        except TimeoutError as error:
            raise DeadlineExceeded(f"nothing of the body arrived in {BODY_TIMEOUT_S:g} s") from error
        if not chunk:
            return
        yield chunk
