"""The doors of a service, told apart by the URL: how a row of a log is made ready for each, and what carries it.

What needs gRPC is imported only where a URL asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from load.client import Transport
from load.connections import Connections
from load.errors import LoadError
from load.http1 import Target, encode_request, parse_url
from load.outcome import Payload
from load.traffic_log import Entry

GRPC = "grpc://"


class Door(Protocol[Payload]):
    """Goes to other processes as it is. `per_process` requests/s are what one process is measured to keep with less
    than a millisecond of its own lateness (`make bench-replay`); `connections` is how many are sensible."""

    @property
    def per_process(self) -> float: ...

    @property
    def connections(self) -> int: ...

    def encode(self, entry: Entry) -> Payload:
        """A row, ready to send. Raises ValueError, which says why, for one that cannot go through this door."""

    def transport(self, connections: int) -> Transport[Payload]:
        """What sends it, by so many connections."""


@dataclass(frozen=True, slots=True)
class HttpDoor:
    """HTTP/1.1. Connections are opened as they are needed."""

    target: Target
    per_process: float = 1000.0
    connections: int = 256

    def encode(self, entry: Entry) -> bytes:
        """See Door."""
        body = None if entry.body is None else entry.body.encode()
        return encode_request(self.target, entry.method, entry.path, entry.headers, body)

    def transport(self, connections: int) -> Transport[bytes]:
        """See Door."""
        return Connections(self.target, connections)


def door_of(url: str) -> Door[Any]:
    """The door at a URL without a query: `http[s]://host[:port][/prefix]` or `grpc://host:port`. Raises LoadError."""
    if not url.startswith((GRPC, "grpcs://")):
        target = parse_url(url)
        if "?" in target.path:
            raise LoadError(f"URL {url!r}: the query is each request's own")
        return HttpDoor(target)
    try:
        from load.rpc.door import parse_rpc_url
    except ImportError as error:
        raise LoadError(f"URL {url!r}: gRPC needs the packages grpcio and protobuf ({error})") from error
    return parse_rpc_url(url)
