"""Which of the types that can be written a client gets (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import NotAcceptable

JSON, NDJSON = "application/json", "application/x-ndjson"
PROTOBUF, ARROW = "application/x-protobuf", "application/vnd.apache.arrow.stream"


def chosen(accept: str | None, kinds: Sequence[str]) -> str:
    """The media type to answer with; of equally welcome ones the first. Raises NotAcceptable."""
    best, wanted = None, 0.0
    for kind in kinds:
        found = quality(kind, accept or "*/*")
        if found > wanted:
            best, wanted = kind, found
    if best is None:
        raise NotAcceptable(f"Accept is {(accept or '')[:200]!r}; there are {', '.join(kinds)}")
    return best


def quality(kind: str, accept: str) -> float:
    """How welcome a media type is: the `q` of the most specific range that covers it, 0 where none does."""
    found, precision = 0.0, -1
    for part in accept.split(","):
        name, *parameters = (one.strip().lower() for one in part.split(";"))
        exact = 2 if name == kind else 1 if name == kind.partition("/")[0] + "/*" else 0 if name == "*/*" else -1
        if exact <= precision:
            continue
        precision, found = exact, 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key == "q":
                try:
                    found = float(value)
                except ValueError:
                    found = 0.0
    return found
