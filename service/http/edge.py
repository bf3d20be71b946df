"""What becomes of a connection before a handler sees a request: what is no HTTP is answered as every other mistake is.

aiohttp answers such a client itself, in plain text, and writes a traceback into our log each time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from service.errors import LOOKS, Look, MalformedBody, UnsupportedMedia
from service.http.lane import Host, Lane
from service.http.respond import CODINGS, problem, problem_of
from service.problems import FAILED
from service.trace import Trace

Handler = Callable[[Any], Awaitable[web.StreamResponse]]
Refuse = Callable[[web.Request], web.StreamResponse | None]

BAD_REQUEST = Look(400, "bad-request", "The request is not proper HTTP")


class Runner(web.AppRunner):
    """An AppRunner whose connections are of this module. aiohttp has no setting for it; `_make_server` is its own.

    `refuse` answers at once a request that there is no room for, before it is routed or its body read; or says None.
    `host` answers what needs no routing.
    """

    def __init__(self, app: web.Application, refuse: Refuse, host: Host, **options: Any) -> None:
        super().__init__(app, **options)
        self.refuse, self.host = refuse, host

    async def _make_server(self) -> web.Server:
        return Server(await super()._make_server(), self.refuse, self.host)


class Server(web.Server):
    """A server like the given one."""

    def __init__(self, like: web.Server, refuse: Refuse, host: Host) -> None:
        super().__init__(
            answered(like.request_handler, refuse),
            request_factory=like.request_factory,
            handler_cancellation=like.handler_cancellation,
            loop=like._loop,
            **like._kwargs,
        )
        self.host = host

    def __call__(self) -> web.RequestHandler:
        return Connection(self, self.host, loop=self._loop, **self._kwargs)


class Connection(Lane):
    """One connection of a client."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what aiohttp could not read (400) or what failed unforeseen (500). Closes the connection."""
        if status >= 500:
            super().handle_error(request, status, exc, message)  # tells the log: that is our mistake
            answer = problem(FAILED, "", Trace())
        else:
            self.logger.debug("refused what %s sent: %r", request.remote, message)
            if request.writer.output_size > 0:
                raise ConnectionError("an answer is under way already")
            answer = problem(*unreadable(exc, " ".join((message or "").split())[:200]), Trace())
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Tells the log, unless a client's body is at fault: its handler has answered already."""
        if isinstance(kw.get("exc_info"), web.RequestPayloadError):
            self.logger.debug("a body could not be read to its end: %r", kw["exc_info"])
        else:
            super().log_exception(*args, **kw)


def unreadable(error: BaseException | None, message: str) -> tuple[Look, str]:
    """What a client is told of a request that aiohttp could not read: how it looks, and the detail."""
    if not isinstance(error, ContentEncodingError):
        return BAD_REQUEST, message
    if "install" in message:  # aiohttp knows of the coding, but has no library for it
        return LOOKS[UnsupportedMedia], f"Content-Encoding is none of {', '.join(CODINGS)}"
    return LOOKS[MalformedBody], "the body is not compressed in the way that Content-Encoding says"


def answered(handler: Handler, refuse: Refuse) -> Handler:
    """What aiohttp refuses before our middleware has its say (an unknown `Expect`), as problem details too."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if (refusal := refuse(request)) is not None:
            return refusal
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return problem_of(error, request, Trace())

    return handle
