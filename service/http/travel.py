"""`GET /v1/recommendations/{id}`: a logged answer, made again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
from aiohttp import web

from service.errors import FieldError, InvalidRequest, NotReady
from service.travel_wire import TimeTravel

KNOWN = ("model_version", "set")
MOST_SET = 100
"""Features set in one request."""
LONGEST = 64
"""Letters of a version, as in a request's `model_version`."""


class Travels(Protocol):
    async def travel(self, recommendation_id: str, version: str | None, sets: Sequence[str]) -> TimeTravel: ...


class TravelApi:
    """`travels` is set once the model is loaded."""

    def __init__(self) -> None:
        self.travels: Travels | None = None

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/v1/recommendations/{recommendation_id}", self.one)

    async def one(self, request: web.Request) -> web.Response:
        version, sets = read(request)
        if self.travels is None:
            raise NotReady("the model is being loaded")
        found = await self.travels.travel(request.match_info["recommendation_id"], version, sets)
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")


def read(request: web.Request) -> tuple[str | None, list[str]]:
    """The version that is asked for, and the features to set. Raises InvalidRequest."""
    known = ", ".join(KNOWN)
    errors = [
        FieldError(name[:100], f"Unknown parameter; known: {known}")
        for name in dict.fromkeys(request.query)
        if name not in KNOWN
    ]
    versions, sets = request.query.getall("model_version", []), request.query.getall("set", [])
    if len(versions) > 1 or not all(0 < len(one) <= LONGEST for one in versions):
        errors.append(FieldError("model_version", f"Expected one version, of 1 to {LONGEST} letters"))
    if len(sets) > MOST_SET:
        errors.append(FieldError("set", f"Expected at most {MOST_SET}, got {len(sets)}"))
    if errors:
        raise InvalidRequest(*errors)
    return next(iter(versions), None), sets
