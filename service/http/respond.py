"""What every endpoint shares: reading a JSON body, and writing JSON and problem details."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import orjson
from aiohttp import web

from service.accept import JSON
from service.errors import DeadlineExceeded, Look, MalformedBody, UnsupportedMedia
from service.problems import problem as problem_details
from service.trace import Trace
from service.wire import Recommendation

PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Reply:
    """A response before it has a form of any server's."""

    status: int
    content_type: str
    body: bytes
    headers: dict[str, str]


class Observer(Protocol):
    """Told of every request when it ends, however it ends."""

    def answered(self, endpoint: str, status: int, trace: Trace) -> None: ...

    def recommended(self, answer: Recommendation, trace: Trace) -> None: ...


CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")

BODY_TIMEOUT_S = 5.0
"""aiohttp's timeouts do not cover a body that stalls; this does."""


CODINGS = ("identity", "gzip", "deflate")
"""How a body may be compressed."""


def body_type(request: web.Request, *known: str) -> str:
    """The body's media type. Raises UnsupportedMedia when it is not one of the known ones, or in another encoding than
    UTF-8, or compressed in a way that we do not read."""
    found = request.headers.get("Content-Type", "missing")
    if request.content_type not in known:
        raise UnsupportedMedia(f"Content-Type is {found[:100]!r}, expected {' or '.join(known)}")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMedia(f"Content-Type is {found[:100]!r}; text is read in UTF-8 only")
    check_coding(request)
    return str(request.content_type)


def check_coding(request: web.Request) -> None:
    """Raises UnsupportedMedia where the body is compressed in a way that we do not read."""
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.lower() not in CODINGS:
        raise UnsupportedMedia(f"Content-Encoding is {coding[:100]!r}, expected one of {', '.join(CODINGS)}")


async def body(request: web.Request, *known: str, empty: bool = False) -> bytes:
    """A body of a known type, by itself JSON. Raises UnsupportedMedia, MalformedBody (empty, where it may not be) or
    DeadlineExceeded (stalled)."""
    body_type(request, *(known or (JSON,)))
    return await read_body(request, empty=empty)


async def read_body(request: web.Request, *, empty: bool = False) -> bytes:
    """A body of whatever type. Raises MalformedBody (empty, where it may not be) or DeadlineExceeded (stalled)."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            data = await request.read()
    except web.RequestPayloadError as error:
        raise MalformedBody(f"the body cannot be read: {' '.join(str(error).split())[:200]}") from error
    except TimeoutError as error:
        raise DeadlineExceeded(f"the body did not arrive in {BODY_TIMEOUT_S:g} s") from error
    if not data and not empty:
        raise MalformedBody("the body is empty")
    return data


def problem_reply(found: Look, detail: str, trace: Trace, errors: Any = ()) -> Reply:
    """RFC 9457 problem details, with Retry-After where waiting helps."""
    headers = {"Server-Timing": trace.server_timing()}
    if found.retry_after_s is not None:
        headers["Retry-After"] = str(found.retry_after_s)
    if found.challenge is not None:
        headers["WWW-Authenticate"] = found.challenge
    return Reply(found.status, PROBLEM, msgspec.json.encode(problem_details(found, detail, errors)), headers)


def routed(reply: Reply) -> web.Response:
    """A reply as aiohttp's response."""
    return web.Response(body=reply.body, status=reply.status, content_type=reply.content_type, headers=reply.headers)


def problem(found: Look, detail: str, trace: Trace, errors: Any = ()) -> web.Response:
    """Problem details as aiohttp's response."""
    return routed(problem_reply(found, detail, trace, errors))


def detail_of(error: web.HTTPException, request: web.Request) -> str:
    """What aiohttp refuses by itself, in words that say what would have been right."""
    if isinstance(error, web.HTTPNotFound):
        return f"there is nothing at {request.path[:200]}"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{request.method[:20]} is not among {', '.join(sorted(error.allowed_methods))}"
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return f"a body may have {request.client_max_size:,} bytes, decompressed (service.max_body_bytes)"
    return " ".join((error.text or "").split())[:200]


def problem_of(error: web.HTTPException, request: web.Request, trace: Trace) -> web.Response:
    """What aiohttp refuses by itself, as problem details."""
    # By the class: Python words the reasons anew from time to time, and clients hold on to a type.
    slug = CAPITAL.sub("-", type(error).__name__.removeprefix("HTTP")).lower()
    title = slug.replace("-", " ").capitalize()
    found = problem(Look(error.status, slug, title), detail_of(error, request), trace)
    if "Allow" in error.headers:
        found.headers["Allow"] = error.headers["Allow"]
    return found


def json_response(content: Any) -> web.Response:
    return web.Response(body=orjson.dumps(content), content_type="application/json")
