"""HTTP/1.1 as a load client needs it: requests made ahead as bytes, and a connection that carries one at a time.

At 1,000 requests/s aiohttp's client takes 40 % of a core to send and read alone; this one takes 20 %, most of it in the
kernel, and it knows the moment at which a request was written. The parser is llhttp (Node's) through httptools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from load.errors import LoadError

# Their answers end where no other's would: HEAD's announce bodies that do not come.
UNPLAYABLE = ("HEAD", "CONNECT")
# A connection's own, where a log's reader lets them through.
_HOP_BY_HOP = {"keep-alive", "te", "trailer", "upgrade"}
_DEFAULTS = (("User-Agent", "endcap-load"), ("Accept", "application/json"))


class Target(NamedTuple):
    """An address: `path` is what follows the host, query included."""

    host: str
    port: int
    tls: bool
    path: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class _Degradable(msgspec.Struct):
    """The one field of an answer that is read here: what the server left out to answer at all."""

    degraded: list[str] = []


_DEGRADABLE = msgspec.json.Decoder(_Degradable)


class Answer(NamedTuple):
    """What a server answered; `server_timing` is that header's value, or values joined by commas; `server` likewise."""

    status: int
    server_timing: str
    body: bytes
    server: str = ""

    @property
    def ok(self) -> bool:
        """A 2xx."""
        return 200 <= self.status < 300

    def degraded(self) -> list[str]:
        """What the server had to do without. Raises ValueError for a body that cannot be read."""
        try:
            return _DEGRADABLE.decode(self.body).degraded
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from error


def parse_url(url: str) -> Target:
    """Read `http[s]://host[:port]/path[?query]`. Raises LoadError for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise LoadError(f"URL {url!r}: {error}") from error
    if parts.scheme in ("grpc", "grpcs"):
        raise LoadError(f"URL {url!r}: HTTP only here; gRPC is for `endcap replay`, as grpc://host:port")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LoadError(f"URL {url!r}: expected http://host:port/path")
    if parts.username is not None or parts.fragment or not url.isascii() or any(c <= " " for c in url):
        raise LoadError(f"URL {url!r}: credentials, fragments, spaces and non-ASCII letters are not sent")
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.hostname, port if port is not None else (443 if tls else 80), tls, path)


def encode_post(target: Target, body: bytes) -> bytes:
    """A whole `POST` of a JSON body, head and all."""
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: endcap-load\r\n"
        f"Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def encode_request(target: Target, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """A whole request, whose `path` follows the target's. Raises ValueError for a method that cannot be played.

    Path and headers are a traffic log's, which has refused what HTTP cannot carry. An untyped body is JSON.
    """
    if method in UNPLAYABLE:
        raise ValueError(f"method {method} cannot be played")
    lines = [f"{method} {target.path.rstrip('/')}{path} HTTP/1.1", f"Host: {target.authority}"]
    given = set()
    for name, value in headers.items():
        given.add(name.lower())
        if name.lower() not in _HOP_BY_HOP:
            lines.append(f"{name}: {value}")
    lines += [f"{name}: {value}" for name, value in _DEFAULTS if name.lower() not in given]
    if body is not None:
        if "content-type" not in given:
            lines.append("Content-Type: application/json")
        lines.append(f"Content-Length: {len(body)}")
    elif method != "GET":
        lines.append("Content-Length: 0")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class Connection(asyncio.Protocol):
    """One keep-alive connection. `on_answer(connection, answer)` follows each `send`, unless `on_lost` does.

    `on_lost(connection, reason)` comes at most once, at the end: `dropped` (the other side closed or reset), or
    `malformed` (it sent what is not HTTP, or an answer that nobody asked for). After `close()` neither comes, and an
    answer that leaves the connection not `reusable` is for the owner to close.
    """

    def __init__(
        self, on_answer: Callable[[Connection, Answer], None], on_lost: Callable[[Connection, str], None]
    ) -> None:
        self._on_answer, self._on_lost = on_answer, on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._loss = "dropped"
        self._busy = self._closed = False
        self.reusable = True
        self._begin_answer()

    def send(self, payload: bytes) -> None:
        """Write one whole request. Only while `reusable` and no answer is awaited."""
        assert self._transport is not None and not self._busy and self.reusable
        self._busy = True
        self._transport.write(payload)

    def close(self) -> None:
        """End at once and say nothing more."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports do not inherit asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if self._closed:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            self._break_off()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            # A whole answer may precede what cannot be read; then the request has been answered.
            self.reusable = False
            if not self._complete:
                self._break_off()
                return
        if self._complete:
            self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if self._closed:
            return
        # RFC 9112, 6.3: an answer with neither length nor chunks ends where the connection ends.
        if self._busy and exc is None and self._headers_done and not self._framed:
            self._deliver()
        else:
            self._on_lost(self, self._loss)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("a second answer to one request")  # the parser turns it into an HttpParserError
        self._begin_answer()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"server-timing":
            self._timings.append(value.decode("latin-1"))
        elif name == b"server":
            self._server.append(value.decode("latin-1"))
        elif name in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        self._headers_done = True
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._status >= 200:  # 1xx is a word in passing, not the answer (RFC 9110, 15.2)
            self._complete = True
            self.reusable = self._parser.should_keep_alive()

    def _begin_answer(self) -> None:
        self._timings: list[str] = []
        self._server: list[str] = []
        self._body: list[bytes] = []
        self._headers_done = self._framed = self._complete = False

    def _deliver(self) -> None:
        answer = Answer(self._status, ", ".join(self._timings), b"".join(self._body), ", ".join(self._server))
        self._busy = self._complete = False
        self._on_answer(self, answer)

    def _break_off(self) -> None:
        self._loss, self.reusable = "malformed", False
        if self._transport is not None:
            self._transport.abort()
