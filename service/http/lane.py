"""The straight way for what a storefront sends all day: a whole, plain POST to one of the two endpoints that answer.

aiohttp takes a stream, two tasks, a router and a middleware to hand over fifty bytes, which is a good part of what an
answer costs. So a connection's bytes are read here first. Whatever is not such a request goes to aiohttp byte for byte,
mistakes too: so there is one set of rules for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Protocol

import httptools
from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

from service.accept import JSON, PROTOBUF, quality
from service.call import HEADERS
from service.http.patience import Patient
from service.http.respond import Reply
from service.http.tape import Recorder, Tape
from service.trace import Trace

MOST_HEAD = 8190
"""Bytes of a request's head; aiohttp says what a longer one may hold."""
TYPES = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})
ACCEPT = "accept"
NAMES = {name.encode("ascii"): name for name in (*HEADERS, ACCEPT)}
WELCOME = frozenset({b"*/*", b"application/json", b"application/json, text/plain, */*"})
"""What clients say who take JSON."""
OTHER_WAYS = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"trailer"})
"""Headers of a request that is not plain."""

PHRASES = {status.value: status.phrase for status in HTTPStatus}
CLOSE = "Connection: close\r\n"


class Host(Protocol):
    """What answers. `most_body` is in bytes. `capture` records what comes; None where nothing is recorded."""

    paths: Mapping[bytes, str]
    most_body: int
    capture: Recorder | None

    def refuse(self, path: str, trace: Trace) -> Reply | None: ...

    def reply(self, path: str, body: bytes, headers: Mapping[str, str], trace: Trace) -> Awaitable[Reply]: ...


@dataclass(slots=True)
class Plain:
    """A plain request; of its headers those that say something to us, by lower-case names."""

    path: bytes = b""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    names: set[bytes] = field(default_factory=set)
    is_json: bool = False
    plain: bool = True


@lru_cache(maxsize=64)
def takes_json(accept: bytes) -> bool:
    """Whether JSON is what a client with such an `Accept` gets; what else it may get is not for this way."""
    return quality(JSON, text := accept.decode("latin-1")) > 0 and quality(JSON, text) >= quality(PROTOBUF, text)


class Scanner:
    """Reads all that comes on one connection, to know where a request ends, and picks out the plain ones.

    The methods that begin with `on_` are llhttp's callbacks.
    """

    __slots__ = ("begun", "ended", "found", "most_body", "parser", "paths", "tape")

    def __init__(self, paths: Mapping[bytes, str], most_body: int, tape: Tape | None) -> None:
        self.paths, self.most_body, self.tape = paths, most_body, tape
        self.begun = self.ended = 0
        self.found = Plain()
        self.parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> Plain | None:
        """The plain request that these bytes are, no more and no less; None where they are anything else."""
        parser = self.parser
        if parser is None:
            return None
        at_start, before = self.begun == self.ended, self.begun
        if not at_start:  # the rest of a request is aiohttp's, however much of it there is
            self.found.plain, self.found.body = False, b""
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.parser = None  # from here on nobody but aiohttp knows what is what
            return None
        found = self.found
        if not (at_start and self.begun == self.ended == before + 1 and found.plain):
            return None
        if len(data) - len(found.body) > MOST_HEAD or not 0 < len(found.body) <= self.most_body:
            return None
        return found

    def on_message_begin(self) -> None:
        self.begun += 1
        self.found = Plain()
        if self.tape is not None:
            self.tape.begin()

    def on_url(self, url: bytes) -> None:
        self.found.path += url
        self.found.plain = self.found.path in self.paths
        if self.tape is not None:
            self.tape.target(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        found, name = self.found, name.lower()
        if name in found.names or name in OTHER_WAYS:
            found.plain = False
        found.names.add(name)
        if name == b"content-type":
            found.is_json = value.lower() in TYPES
        elif (known := NAMES.get(name)) is not None:
            if known == ACCEPT:
                found.plain = found.plain and (value in WELCOME or takes_json(value))
            else:
                found.headers[known] = value.decode("utf-8", "surrogateescape")
        if self.tape is not None:
            self.tape.header(name, value)

    def on_body(self, body: bytes) -> None:
        if self.found.plain:
            self.found.body += body
        if self.tape is not None and self.parser is not None:
            self.tape.content(body, self.parser.get_method())

    def on_message_complete(self) -> None:
        self.ended += 1
        found, parser = self.found, self.parser
        if found.plain and parser is not None:
            found.plain = (
                found.is_json and b"host" in found.names and parser.should_keep_alive()
                and parser.get_method() == b"POST" and parser.get_http_version() == "1.1"
            )  # fmt: skip
        if self.tape is not None and parser is not None:
            self.tape.complete(parser.get_method())


class Lane(Patient):
    """A connection of aiohttp's that answers plain requests itself, one at a time.

    It takes one only while aiohttp has nothing to do here, and holds back what comes meanwhile: so answers leave in the
    order of their requests.
    """

    def __init__(self, manager: web.Server, host: Host, **options: object) -> None:
        super().__init__(manager, **options)
        self.host = host
        self.tape = None if host.capture is None else Tape(host.capture)
        self.scanner = Scanner(host.paths, host.most_body, self.tape)
        self.task: asyncio.Task[None] | None = None
        self.held: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        if self.tape is not None:
            self.tape.arrived()
        self.take(data)

    def take(self, data: bytes) -> None:
        """Reads what has come, now or while a request was being answered."""
        if self.task is not None:
            self.held.append(data)
            if len(self.held) == 1 and self.transport is not None:
                self.transport.pause_reading()
            return
        trace = Trace()
        closing = self._close or self._force_close
        found = self.scanner.feed(data) if data and not closing else None
        if found is None or self.writing_paused or not self.at_rest():
            super().data_received(data)
            self.watch_head()
            return
        path = self.host.paths[found.path]
        if (refusal := self.host.refuse(path, trace)) is not None:
            self.write(refusal)
            return
        self.task = self._loop.create_task(self.answer(path, found, trace))

    def half_way(self) -> int | None:
        return self.scanner.begun if self.scanner.begun > self.scanner.ended else None

    def _process_keepalive(self) -> None:
        """aiohttp, which sees no request here while we answer one, would close the connection as idle."""
        if self.task is not None:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    async def answer(self, path: str, found: Plain, trace: Trace) -> None:
        try:
            self.write(await self.host.reply(path, found.body, found.headers, trace))
            if self.writing_paused:
                await self._drain_helper()
        except ConnectionError:
            self.log_debug("Ignored premature client disconnection")
        finally:
            self.task = None
        if self.held and self.transport is not None:
            held, self.held = self.held, []
            self.transport.resume_reading()
            for data in held:
                self.take(data)

    def write(self, reply: Reply) -> None:
        if self.transport is None:
            return
        last = self._close or self._force_close
        self.transport.write(encode(reply, last=last))
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if last:
            self.force_close()

    def close(self) -> None:
        """No further request; the one that is being answered gets its answer."""
        if self.task is None:
            super().close()
        else:
            self._close = True

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - the signature is aiohttp's
        if self.task is not None:
            self._close = True
            await asyncio.wait([self.task], timeout=timeout)
        await super().shutdown(timeout)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.held.clear()
        if self.task is not None:
            self.task.cancel()


def encode(reply: Reply, *, last: bool) -> bytes:
    """An HTTP/1.1 response with the headers that aiohttp sends (RFC 9112)."""
    more = "".join([f"{name}: {value}\r\n" for name, value in reply.headers.items()])
    head = (
        f"HTTP/1.1 {reply.status} {PHRASES[reply.status]}\r\n{more}Content-Type: {reply.content_type}\r\n"
        f"Content-Length: {len(reply.body)}\r\nDate: {rfc822_formatted_time()}\r\nServer: {SERVER_SOFTWARE}\r\n"
        f"{CLOSE if last else ''}\r\n"
    )
    return head.encode("latin-1") + reply.body
