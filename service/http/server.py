"""The HTTP transport: decode, call, encode, nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec
import orjson
from aiohttp import web

from service.call import read_call
from service.errors import LOOKS, NotReady, Overloaded, look
from service.http.console_page import ConsoleApi
from service.http.insight import InsightApi
from service.http.intake import IntakeApi
from service.http.intake import Observer as IntakeObserver
from service.http.openapi import openapi
from service.http.respond import body, json_response, problem, problem_of
from service.http.strict import StrictDecoder
from service.recommend import Recommender
from service.trace import Trace
from service.wire import RankRequest, Recommendation, RecommendRequest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RECOMMENDATIONS, RANK = "/v1/recommendations", "/v1/rank"
GATED = frozenset({RECOMMENDATIONS, RANK})
"""Where only so many come in as can be answered in time."""
TRACE = web.RequestKey("trace", Trace)
PLACEMENT = web.RequestKey("placement", str)


class Observer(IntakeObserver, Protocol):
    """Told of every request when it ends, however it ends."""

    def answered(self, endpoint: str, placement: str, status: int, seconds: float) -> None: ...

    def recommended(self, answer: Recommendation, trace: Trace) -> None: ...


class Api:
    """The endpoints. `ready` returns why the service is not ready, or None; `metrics` the Prometheus text."""

    def __init__(
        self,
        observer: Observer,
        ready: Callable[[], Awaitable[str | None]],
        metrics: Callable[[], tuple[bytes, str]],
    ) -> None:
        self.observer, self.ready, self.metrics_text = observer, ready, metrics
        self.recommender: Recommender | None = None
        self.intake, self.insight, self.console = IntakeApi(observer), InsightApi(), ConsoleApi()
        self.recommend_decoder = StrictDecoder(RecommendRequest)
        self.rank_decoder = StrictDecoder(RankRequest)
        self.describe(["i00001", "i00002", "i00003"])
        self.try_page = (Path(__file__).parent / "try.html").read_text(encoding="utf-8")

    def application(self, max_body_bytes: int) -> web.Application:
        app = web.Application(client_max_size=max_body_bytes, middlewares=[self.errors])
        app.router.add_post(RECOMMENDATIONS, self.recommend)
        app.router.add_post(RANK, self.rank)
        self.intake.add_to(app)
        self.insight.add_to(app)
        self.console.add_to(app)
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

    def answering(self) -> Recommender:
        if self.recommender is None:
            raise NotReady("the model is being loaded")
        return self.recommender

    async def recommend(self, request: web.Request) -> web.Response:
        trace = request[TRACE]
        with trace("decode"):
            wanted: RecommendRequest = self.recommend_decoder.decode(await body(request))
        answer = await self.answering().recommend(wanted, trace, read_call(request.headers))
        request[PLACEMENT] = wanted.placement  # a metric's label only once it is known to be one of ours
        return self.respond(answer, trace)

    async def rank(self, request: web.Request) -> web.Response:
        trace = request[TRACE]
        with trace("decode"):
            wanted: RankRequest = self.rank_decoder.decode(await body(request))
        answer = await self.answering().rank(wanted, trace, read_call(request.headers))
        request[PLACEMENT] = wanted.placement
        return self.respond(answer, trace)

    def refuse(self, request: web.Request) -> web.StreamResponse | None:
        """The answer to a request that nobody would be let in for; None where somebody would."""
        if self.recommender is None or request.path not in GATED or not self.recommender.limiter.full():
            return None
        trace, error = Trace(), self.recommender.limiter.refuse()
        self.observer.answered(request.path, "", LOOKS[Overloaded].status, trace.elapsed())
        return problem(LOOKS[Overloaded], str(error), trace)

    def respond(self, answer: Recommendation, trace: Trace) -> web.Response:
        with trace("encode_json"):
            encoded = orjson.dumps(answer, default=msgspec.to_builtins)
        self.observer.recommended(answer, trace)
        return web.Response(
            body=encoded, content_type="application/json", headers={"Server-Timing": trace.server_timing()}
        )

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
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            if status < 400:
                raise
            return problem_of(error, request, trace)
        except Exception as error:
            found = look(error)
            if found is None:
                status = 500
                raise
            status = found.status
            return problem(found, str(error), trace, getattr(error, "errors", ()))
        finally:
            endpoint = request.match_info.route.resource
            name = endpoint.canonical if endpoint is not None else "unknown"
            self.observer.answered(name, request.get(PLACEMENT, ""), status, trace.elapsed())
