"""A replay's result as reports read it from JSON: checked, with a message that names the file and the field.

Durations are milliseconds; None stands where there was nothing to tell. What no report reads is passed over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from load.errors import LoadError

KIND, VERSION = "endcap replay", 1


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of all latencies, counted from the intended time."""

    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None = msgspec.field(name="p99.9")
    max: float | None
    mean: float | None


class Client(msgspec.Struct, frozen=True):
    """How late the client itself sent; `late` requests were more than 1 ms late."""

    lateness_p50_ms: float | None
    lateness_p99_ms: float | None
    lateness_max_ms: float | None
    late: int
    verdict: str


class Group(msgspec.Struct, frozen=True):
    """The answers of one endpoint, placement and status."""

    endpoint: str
    placement: str | None
    status: str | int
    count: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class Second(msgspec.Struct, frozen=True):
    """The requests that were due in one second of the run; `statuses` says how many of them ended in which way."""

    second: int
    intended: int
    sent: int
    answered: int
    errors: int
    degraded: int
    statuses: dict[str, int]
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class Stage(msgspec.Struct, frozen=True):
    """What the server says that a stage took."""

    count: int
    p50: float | None
    p99: float | None
    mean: float | None


class Bound(msgspec.Struct, frozen=True):
    """One bound of the SLO as it was written, and what was measured: milliseconds, or percent."""

    name: str
    bound: str
    value: float | None
    met: bool


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `speed` and `rate` are as asked for; `planned` requests were due in `duration` seconds.

    The last of them were answered by `seconds`.
    """

    kind: str
    version: int
    log: str
    url: str
    started: str
    seconds: float
    duration: float
    speed: float
    rate: float | None
    processes: int
    planned: int
    sent: int
    answered: int
    errors: int
    bad_rows: int
    complaints: list[str]
    client: Client
    latency_ms: Latency
    percentiles: list[tuple[float, float]]
    groups: list[Group]
    seconds_series: list[Second]
    statuses: dict[str, int]
    degraded: dict[str, int]
    degraded_answers: int
    stages_ms: dict[str, Stage]
    slo: list[Bound]
    machine: dict[str, Any] | str
    versions: dict[str, str | None]

    def rate_intended(self) -> float:
        """Requests/s that were due."""
        return self.planned / self.duration if self.duration else 0.0

    def error_share(self) -> float | None:
        """Of the requests planned, the share that was not answered 2xx, or OK over gRPC."""
        return self.errors / self.planned if self.planned else None

    def degraded_share(self) -> float | None:
        """Of the answers, the share that had to do without something."""
        return self.degraded_answers / self.answered if self.answered else None


def read(path: Path) -> Replay:
    """Read a result. Raises LoadError that names the file and what is wrong in it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror}") from error
    try:
        return check(msgspec.json.decode(content))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LoadError(f"{path}: no JSON: {error}") from error
    except LoadError as error:
        raise LoadError(f"{path}: {error}") from error


def check(result: Any) -> Replay:
    """The result of a replay from its JSON. Raises LoadError that names the field."""
    if not isinstance(result, dict) or result.get("kind") != KIND:
        raise LoadError("not the result of a replay (its kind is not 'endcap replay')")
    if result.get("version") != VERSION:
        raise LoadError(f"version {result.get('version')!r} of the result of a replay; this one reads {VERSION}")
    try:
        return msgspec.convert(result, Replay)
    except msgspec.ValidationError as error:
        raise LoadError(str(error)) from error
