"""gRPC's door, as proto/endcap/v1/recommendations.proto describes it. Whatever imports this imports gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from load.client import Transport
from load.errors import LoadError
from load.rpc.calls import RpcCall, call_of
from load.rpc.channels import Channels
from load.traffic_log import Entry


@dataclass(frozen=True, slots=True)
class RpcDoor:
    """See Door. A connection carries many calls, but stays with one worker of the service: so there are several, all
    open from the beginning on."""

    host: str
    port: int
    per_process: float = 1000.0
    connections: int = 16

    def encode(self, entry: Entry) -> RpcCall:
        """See Door."""
        return call_of(entry)

    def transport(self, connections: int) -> Transport[RpcCall]:
        """See Door."""
        return Channels(self.host, self.port, connections)


def parse_rpc_url(url: str) -> RpcDoor:
    """Read `grpc://host:port`. Raises LoadError for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise LoadError(f"URL {url!r}: {error}") from error
    if parts.scheme != "grpc":
        raise LoadError(f"URL {url!r}: TLS is not spoken over gRPC; expected grpc://host:port")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise LoadError(f"URL {url!r}: gRPC's methods have no path before them; expected grpc://host:port")
    if not parts.hostname or port is None:
        raise LoadError(f"URL {url!r}: expected grpc://host:port")
    if parts.username is not None or not url.isascii() or any(character <= " " for character in url):
        raise LoadError(f"URL {url!r}: credentials, spaces and non-ASCII letters are not sent")
    return RpcDoor(parts.hostname, port)
