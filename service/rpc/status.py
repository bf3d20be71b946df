"""What problem details are in gRPC's words: a status code, and `google.rpc` details in the trailing metadata."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from service.errors import FieldError, Look

CODES: dict[int, Any] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    406: grpc.StatusCode.UNIMPLEMENTED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.UNIMPLEMENTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.UNAVAILABLE,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""By the HTTP status of an error's Look. UNAVAILABLE is what clients may send again by their own retry policy."""

DETAILS = "grpc-status-details-bin"
DOMAIN = "endcap"
MOST_MESSAGE, MOST_DETAILS = 500, 3_000
"""Bytes. A client takes 8 KiB of metadata, if nobody told it otherwise, and a call with more fails without a reason."""


def message_of(found: Look, detail: str) -> str:
    """What a status says in words: the detail, or the title where there is none."""
    return shortened(" ".join((detail or found.title).split()), MOST_MESSAGE)


def details(found: Look, message: str, errors: tuple[FieldError, ...]) -> bytes:
    """A google.rpc.Status: ErrorInfo always, RetryInfo where waiting helps, BadRequest where fields are wrong. Fields
    beyond MOST_DETAILS are left out, and the last one says so."""
    status = Status(code=CODES[found.status].value[0], message=message)
    status.details.append(packed(ErrorInfo(reason=found.slug, domain=DOMAIN)))
    if found.retry_after_s is not None:
        status.details.append(packed(RetryInfo(retry_delay=Duration(seconds=found.retry_after_s))))
    bad = BadRequest()
    for place, error in enumerate(errors):
        if bad.ByteSize() > MOST_DETAILS - MOST_MESSAGE:
            bad.field_violations.add(field="", description=f"and {len(errors) - place} more")
            break
        bad.field_violations.add(field=shortened(error.path, 200), description=shortened(error.message, 400))
    if errors:
        status.details.append(packed(bad))
    encoded: bytes = status.SerializeToString()
    return encoded


def packed(message: Any) -> Any:
    found = AnyMessage()
    found.Pack(message)
    return found


def shortened(text: str, most: int) -> str:
    """At most so many bytes of UTF-8."""
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= most else encoded[: most - 3].decode("utf-8", "ignore") + "..."
