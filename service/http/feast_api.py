"""The HTTP API of Feast's feature server, at its own paths: what a stock SDK reads if its online store is `remote`.

What Feast has a class of error for is told in Feast's form, so that the SDK raises that class; the rest is problem
details, which the SDK shows as they are.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
import orjson
from aiohttp import web

from features.errors import NotOffered
from service.errors import DoorClosed, NotReady
from service.feast_wire import GetOnlineFeaturesRequest, PushRequest, WriteRequest, Written
from service.http.respond import body
from service.http.strict import StrictDecoder

JSON = "application/json"
STATUSES = {
    "FeatureViewNotFoundException": 404, "FeatureServiceNotFoundException": 404,
    "FeatureNameCollisionError": 422, "PushSourceNotFoundException": 422,
}  # fmt: skip


class Desk(Protocol):
    async def features(self, asked: GetOnlineFeaturesRequest) -> bytes: ...

    async def push(self, asked: PushRequest) -> Written: ...

    async def write_view(self, asked: WriteRequest) -> Written: ...


class FeastApi:
    """`POST /get-online-features`, `/push` and `/write-to-online-store`, and `GET /health`. `opened` is set before the
    port opens, `desk` once the registry is known."""

    def __init__(self) -> None:
        self.opened = False
        self.desk: Desk | None = None
        self.asked = StrictDecoder(GetOnlineFeaturesRequest)
        self.pushed, self.sent = StrictDecoder(PushRequest), StrictDecoder(WriteRequest)

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/get-online-features", self.features)
        app.router.add_post("/push", self.push)
        app.router.add_post("/write-to-online-store", self.write)
        app.router.add_get("/health", self.health)

    async def features(self, request: web.Request) -> web.Response:
        desk = self.ready()
        try:
            answer = await desk.features(self.asked.decode(await body(request)))
        except NotOffered as error:
            return as_feast(error)
        return web.Response(body=answer, content_type=JSON)

    async def push(self, request: web.Request) -> web.Response:
        desk = self.ready()
        try:
            return written(await desk.push(self.pushed.decode(await body(request))))
        except NotOffered as error:
            return as_feast(error)

    async def write(self, request: web.Request) -> web.Response:
        desk = self.ready()
        try:
            return written(await desk.write_view(self.sent.decode(await body(request))))
        except NotOffered as error:
            return as_feast(error)

    async def health(self, request: web.Request) -> web.Response:
        self.ready()
        return web.Response()

    def ready(self) -> Desk:
        if not self.opened:
            raise DoorClosed("Feast's API is closed: feast_api.enabled is false in endcap.toml")
        if self.desk is None:
            raise NotReady("Feast's registry is not known yet")
        return self.desk


def written(done: Written) -> web.Response:
    return web.Response(body=msgspec.json.encode(done), content_type=JSON)


def as_feast(error: NotOffered) -> web.Response:
    """As Feast's server tells its own errors: JSON in a JSON string. Its SDK tries a 500 again, which some of them are
    there, and never shows it."""
    detail = orjson.dumps({"module": "feast.errors", "class": error.kind, "message": str(error)})
    return web.Response(status=STATUSES[error.kind], body=orjson.dumps(detail.decode()), content_type=JSON)
