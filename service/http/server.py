"""The HTTP transport: decode, call, encode, nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import orjson
from aiohttp import web

from service.accept import JSON, PROTOBUF
from service.errors import NotReady, look
from service.http.answers import Answers
from service.http.batch import BatchApi
from service.http.batch import Observer as BatchObserver
from service.http.console_page import ConsoleApi
from service.http.feast_api import FeastApi
from service.http.insight import InsightApi
from service.http.intake import IntakeApi
from service.http.intake import Observer as IntakeObserver
from service.http.jobs import JobsApi
from service.http.models import ModelsApi
from service.http.oip import OipApi
from service.http.openapi import openapi
from service.http.protobuf import answer as protobuf_answer
from service.http.protobuf import answer_type, as_accepted
from service.http.respond import body, body_type, json_response, problem, problem_of, routed
from service.http.travel import TravelApi
from service.many import BatchConfig
from service.trace import Trace

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TRACE = web.RequestKey("trace", Trace)


class Observer(BatchObserver, IntakeObserver, Protocol):
    """Told of what comes in and what goes out."""


class Api:
    """The endpoints. `ready` returns why the service is not ready, or None; `metrics` the Prometheus text. `oip` is set
    before the port opens, where it is to be open."""

    def __init__(
        self,
        observer: Observer,
        ready: Callable[[], Awaitable[str | None]],
        metrics: Callable[[], tuple[bytes, str]],
        max_body_bytes: int,
        batch: BatchConfig,
    ) -> None:
        self.observer, self.ready, self.metrics_text = observer, ready, metrics
        self.answers = Answers(observer, max_body_bytes)
        self.intake, self.insight, self.console = IntakeApi(observer), InsightApi(), ConsoleApi()
        self.travel = TravelApi()
        self.batch = BatchApi(self.answers, observer, batch)
        self.models, self.feast = ModelsApi(), FeastApi()
        self.oip: OipApi | None = None
        self.jobs = JobsApi(self.models.admit)
        self.describe(["i00001", "i00002", "i00003"])
        self.try_page = (Path(__file__).parent / "try.html").read_text(encoding="utf-8")

    def application(self) -> web.Application:
        app = web.Application(client_max_size=self.answers.most_body, middlewares=[self.errors])
        for path in self.answers.decoders:
            app.router.add_post(path, self.answer)
        self.intake.add_to(app)
        self.insight.add_to(app)
        self.travel.add_to(app)
        self.batch.add_to(app)
        self.models.add_to(app)
        self.feast.add_to(app)
        self.jobs.add_to(app)
        self.console.add_to(app)
        if self.oip is not None:
            self.oip.add_to(app)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/openapi.json", self.schema)
        app.router.add_get("/docs", self.docs)
        app.router.add_get("/", self.index)
        return app

    def describe(self, item_ids: list[str]) -> None:
        """Makes the OpenAPI document, with examples about these items."""
        self.openapi_body = orjson.dumps(openapi(item_ids))

    async def answer(self, request: web.Request) -> web.Response:
        kind = body_type(request, JSON, PROTOBUF)
        formats = kind, answer_type(request, kind)
        data = await body(request, kind, empty=kind == PROTOBUF)
        if PROTOBUF not in formats:
            return routed(await self.answers.answer(request.path, data, request.headers, request[TRACE]))
        self.observer.formatted(request.path, *formats)
        return routed(await protobuf_answer(self.answers, request, request[TRACE], data, formats))

    def refuse(self, request: web.Request) -> web.StreamResponse | None:
        """The answer to a request that nobody would be let in for; None where somebody would."""
        refusal = self.answers.refuse(request.path, Trace())
        return None if refusal is None else as_accepted(routed(refusal), request)

    async def healthz(self, request: web.Request) -> web.Response:
        return json_response({"status": "alive"})

    async def readyz(self, request: web.Request) -> web.Response:
        if why := await self.ready():
            raise NotReady(why)
        return json_response({"status": "ready"})

    async def metrics(self, request: web.Request) -> web.Response:
        text, content_type = self.metrics_text()
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def schema(self, request: web.Request) -> web.Response:
        return web.Response(body=self.openapi_body, content_type="application/json")

    async def docs(self, request: web.Request) -> web.Response:
        return web.Response(text=self.try_page, content_type="text/html")

    async def index(self, request: web.Request) -> web.Response:
        raise web.HTTPFound("/docs")

    @web.middleware
    async def errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turns every error into problem details, and tells the observer of every request."""
        trace = request[TRACE] = Trace()
        status = 499  # the client went away
        try:
            response = await handler(request)
            if request.transport is not None and not request.transport.is_closing():
                status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            if status < 400:
                raise
            return as_accepted(problem_of(error, request, trace), request)
        except Exception as error:
            found = look(error)
            if found is None:
                status = 500
                raise
            status = found.status
            return as_accepted(problem(found, str(error), trace, getattr(error, "errors", ())), request)
        finally:
            endpoint = request.match_info.route.resource
            name = endpoint.canonical if endpoint is not None else "unknown"
            self.observer.answered(name, status, trace)
