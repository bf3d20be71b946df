"""A row of a log, which is an HTTP request, as the gRPC call that asks for the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from load.rpc import bodies
from load.rpc.stubs import recommendations_pb2 as pb
from load.traffic_log import Entry

SERVICE: str = pb.DESCRIPTOR.services_by_name["Recommendations"].full_name
RECOMMEND, RANK, RECORD_EVENTS = (f"/{SERVICE}/{name}" for name in ("Recommend", "Rank", "RecordEvents"))

METADATA = frozenset({"endcap-timeout-ms", "endcap-priority", "endcap-after", "x-envoy-expected-rq-timeout-ms"})
"""The headers that the service reads in metadata too. The others are HTTP's business, and are left out."""
# gRPC's own word for a deadline: as metadata it cannot go, and as a deadline it would end the measuring, too.
UNSENDABLE = "grpc-timeout"
JSON, NDJSON = "application/json", "application/x-ndjson"

Messages = Callable[[str], tuple[bytes, ...]]
METHODS: dict[tuple[str, str], tuple[str, Messages]] = {
    ("/v1/recommendations", JSON): (RECOMMEND, bodies.recommend_request),
    ("/v1/rank", JSON): (RANK, bodies.rank_request),
    ("/v1/events", JSON): (RECORD_EVENTS, bodies.events),
    ("/v1/events", NDJSON): (RECORD_EVENTS, bodies.event_lines),
}
"""By path and type of the body: the method, and what makes its messages."""
PATHS = frozenset(path for path, _ in METHODS)


class RpcCall(NamedTuple):
    """A call as it is sent: of RECORD_EVENTS any number of messages, of the other methods one."""

    method: str
    metadata: tuple[tuple[str, str], ...]
    messages: tuple[bytes, ...]


def call_of(entry: Entry) -> RpcCall:
    """Raises ValueError, which says why, for a request that no call can ask for alike."""
    path = entry.path.partition("?")[0]
    if entry.method != "POST" or path not in PATHS:
        raise ValueError(f"{entry.method} {path} cannot be played over gRPC")
    kind = body_type(entry.headers)
    if (path, kind) not in METHODS:
        raise ValueError(f"a body of {kind[:100]} cannot be played over gRPC")
    if entry.body is None:
        raise ValueError("no body, of which no message can be made")
    method, messages = METHODS[path, kind]
    try:
        made = messages(entry.body)
    except ValueError as error:
        raise ValueError(f"the body cannot be said in a message: {error}") from error
    return RpcCall(method, metadata(entry.headers), made)


def body_type(headers: Mapping[str, str]) -> str:
    """The media type of the body, without parameters; JSON where nothing says what it is."""
    said = next((value for name, value in headers.items() if name.lower() == "content-type"), JSON)
    return said.partition(";")[0].strip().lower()


def metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Raises ValueError for what metadata cannot hold."""
    found = []
    for header, value in headers.items():
        name = header.lower()
        if name == UNSENDABLE:
            raise ValueError(f"header {header} is gRPC's own, and no replay sets a deadline")
        if name in METADATA:
            if not (value.isascii() and value.isprintable()):
                raise ValueError(f"header {header}: {value[:40]!r} is not printable ASCII, as metadata are")
            found.append((name, value))
    return tuple(found)
