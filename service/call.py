"""What a request says of itself beside its body: how long it may take, whether it can wait, what it must know of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from service.errors import FieldError, InvalidRequest

AFTER, TIMEOUT, PRIORITY = "Endcap-After", "Endcap-Timeout-Ms", "Endcap-Priority"
GRPC_TIMEOUT, ENVOY_TIMEOUT = "grpc-timeout", "x-envoy-expected-rq-timeout-ms"
HEADERS = tuple(name.lower() for name in (AFTER, TIMEOUT, PRIORITY, GRPC_TIMEOUT, ENVOY_TIMEOUT))
PRIORITIES = ("interactive", "bulk")
UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
GRPC = re.compile(r"([0-9]{1,8})([HMSmun])")
"""gRPC over HTTP/2, Requests: TimeoutValue TimeoutUnit."""
MILLISECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Call:
    """`timeout_s`: what the caller still has, None where it does not say. `bulk`: whether it can wait, None where the
    placement decides. `after`: the token of events that the features must hold. `patient`: nobody waits for the answer,
    so that `timeout_s` holds whatever the placement allows."""

    timeout_s: float | None = None
    bulk: bool | None = None
    after: str | None = None
    patient: bool = False


PLAIN = Call()


def read_call(headers: Mapping[str, str]) -> Call:
    """Of several timeouts the shortest; headers are looked up by lower-case names. Raises InvalidRequest for one that
    says nothing that we know."""
    if not headers:
        return PLAIN
    priority = headers.get(PRIORITY.lower())
    if priority is not None and priority not in PRIORITIES:
        raise InvalidRequest(FieldError(PRIORITY, f"is {priority[:100]!r}, expected one of {', '.join(PRIORITIES)}"))
    said = [
        read(name, text)
        for name, read in ((TIMEOUT, milliseconds), (GRPC_TIMEOUT, grpc), (ENVOY_TIMEOUT, milliseconds))
        if (text := headers.get(name.lower())) is not None
    ]
    return Call(min(said, default=None), None if priority is None else priority == "bulk", headers.get(AFTER.lower()))


def milliseconds(name: str, text: str) -> float:
    if not MILLISECONDS.fullmatch(text):
        raise InvalidRequest(FieldError(name, f"is {text[:100]!r}, expected milliseconds such as 50"))
    return float(text) / 1e3


def grpc(name: str, text: str) -> float:
    found = GRPC.fullmatch(text)
    if found is None:
        raise InvalidRequest(FieldError(name, f"is {text[:100]!r}, expected up to 8 digits and a unit, such as 50m"))
    return int(found[1]) * UNITS_S[found[2]]
