"""`GET /v1/models`, and changes of which version stands for what, for who has the admin key."""

from __future__ import annotations

import hmac
from typing import Protocol

import msgspec
from aiohttp import web

from service.errors import AdminDisabled, FieldError, InvalidRequest, NotReady, Unauthorized
from service.http.respond import body
from service.http.strict import StrictDecoder
from service.models_wire import Changed, ChangeRequest, ModelsReport

SCHEME = "bearer"


class Models(Protocol):
    async def report(self) -> ModelsReport: ...

    async def promote(self, name: str, version: str, asked: ChangeRequest, by: str) -> Changed: ...

    async def rollback(self, name: str, asked: ChangeRequest, by: str) -> Changed: ...


class ModelsApi:
    """`models` is set once they are loaded, `key` before the port opens; without one nobody may change anything."""

    def __init__(self) -> None:
        self.models: Models | None = None
        self.key: bytes | None = None
        self.decoder = StrictDecoder(ChangeRequest)

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/v1/models", self.all_models)
        app.router.add_post("/v1/models/{name}/versions/{version}/promote", self.promote)
        app.router.add_post("/v1/models/{name}/rollback", self.rollback)

    async def all_models(self, request: web.Request) -> web.Response:
        return answer(await self.ready().report())

    async def promote(self, request: web.Request) -> web.Response:
        self.admit(request)
        name, version = request.match_info["name"], request.match_info["version"]
        asked = await self.asked(request)
        return answer(await self.ready().promote(name, version, asked, whose(request)))

    async def rollback(self, request: web.Request) -> web.Response:
        self.admit(request)
        asked = await self.asked(request)
        if asked.plan is not None:
            raise InvalidRequest(FieldError("plan", "going back has no steps"))
        return answer(await self.ready().rollback(request.match_info["name"], asked, whose(request)))

    def admit(self, request: web.Request) -> None:
        """Raises AdminDisabled or Unauthorized."""
        if self.key is None:
            raise AdminDisabled(
                "no admin key is set: put one of 16 characters or more into the environment variable of admin.key_env, "
                "or into the file of admin.key_file, and start again"
            )
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        sent = given.strip().encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(sent, self.key) or scheme.lower() != SCHEME:
            raise Unauthorized("Authorization: Bearer … does not have the admin key")

    async def asked(self, request: web.Request) -> ChangeRequest:
        """The body, which may be left out. Raises MalformedBody, InvalidRequest or UnsupportedMedia."""
        if not request.can_read_body:
            return ChangeRequest()
        found: ChangeRequest = self.decoder.decode(await body(request))
        return found

    def ready(self) -> Models:
        if self.models is None:
            raise NotReady("the model is being loaded")
        return self.models


def whose(request: web.Request) -> str:
    """Who makes a change, for the history."""
    return f"http {request.remote}"


def answer(content: ModelsReport | Changed) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")
