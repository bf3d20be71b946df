"""For those who ask how fresh the features are (now, of one user, as served), how like training's, and how the engine
does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from aiohttp import web

from features.user import Reading
from service.engine_wire import EngineReport
from service.errors import DeadlineExceeded, FieldError, InvalidRequest, NotReady
from service.freshness_wire import CSV, FreshnessReport, ViewReport, encode_as
from service.skew_wire import SkewReport
from service.wire import StoredFeatures, StoredView


class Reader(Protocol):
    async def readings(self, user_id: str) -> Sequence[Reading]: ...


class Reports(Protocol):
    def report(self) -> FreshnessReport: ...

    async def view(self, name: str, window: str, by: str) -> ViewReport: ...


class Watch(Protocol):
    async def report(self) -> EngineReport: ...


class Skews(Protocol):
    def report(self) -> SkewReport: ...


class InsightApi:
    """`GET /v1/freshness`, `/v1/features/user/{id}`, `/v1/skew` and `/v1/engine`. `reader` reads all of a user's views;
    it and `freshness` are set once the views are known, `engine` once the model is loaded."""

    def __init__(self, timeout_s: float = 2.0) -> None:
        self.timeout_s = timeout_s
        self.reader: Reader | None = None
        self.freshness: Reports | None = None
        self.engine: Watch | None = None
        self.skew: Skews | None = None

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/v1/freshness", self.all_views)
        app.router.add_get("/v1/freshness/{view}", self.one_view)
        app.router.add_get("/v1/features/user/{user_id:.+}", self.user)
        app.router.add_get("/v1/engine", self.batches)
        app.router.add_get("/v1/skew", self.all_versions)

    async def all_views(self, request: web.Request) -> web.Response:
        return as_accepted(request, self.known().report())

    async def one_view(self, request: web.Request) -> web.Response:
        asked = {"window": "1h", "by": "placement"} | dict(request.query)
        if unknown := set(asked) - {"window", "by"}:
            raise InvalidRequest(*(FieldError(name[:100], "Unknown parameter; known: by, window") for name in unknown))
        report = await self.known().view(request.match_info["view"], asked["window"], asked["by"])
        return as_accepted(request, report)

    def known(self) -> Reports:
        if self.freshness is None:
            raise NotReady("the feature views are not known yet")
        return self.freshness

    async def batches(self, request: web.Request) -> web.Response:
        if self.engine is None:
            raise NotReady("the model is being loaded")
        return web.Response(body=msgspec.json.encode(await self.engine.report()), content_type="application/json")

    async def all_versions(self, request: web.Request) -> web.Response:
        if self.skew is None:
            raise NotReady("the model is being loaded")
        return web.Response(body=msgspec.json.encode(self.skew.report()), content_type="application/json")

    async def user(self, request: web.Request) -> web.Response:
        if self.reader is None:
            raise NotReady("the feature views are not known yet")
        user_id = request.match_info["user_id"]
        try:
            async with asyncio.timeout(self.timeout_s):
                found = await self.reader.readings(user_id)
        except TimeoutError as error:
            raise DeadlineExceeded(f"Redis did not answer in {self.timeout_s:g} s") from error
        answer = StoredFeatures(user_id, datetime.now(UTC), [view(one) for one in found])
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


def as_accepted(request: web.Request, report: FreshnessReport | ViewReport) -> web.Response:
    content, kind = encode_as(request.headers.get("Accept"), report)
    return web.Response(body=content, content_type=kind, charset="utf-8" if kind == CSV else None)


def view(one: Reading) -> StoredView:
    at = None if one.event_time is None else datetime.fromtimestamp(one.event_time, UTC)
    return StoredView(one.view, one.status, one.age_s, at, one.max_age_s, one.values)
