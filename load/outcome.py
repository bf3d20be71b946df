"""What goes into a run and what comes out of it, known to those who play it and to those who add it up."""

from __future__ import annotations

from typing import NamedTuple

from load.http1 import Answer


class Label(NamedTuple):
    """What a request asked for: `POST /v1/recommendations` of which placement (None: of none)."""

    endpoint: str
    placement: str | None


NO_LABEL = Label("", None)


class Planned(NamedTuple):
    """A request to send `at` seconds after the start; `payload` is all of it, as HTTP/1.1 bytes.

    `label` comes back with the outcome, for whoever adds it up.
    """

    at: float
    payload: bytes
    label: Label = NO_LABEL


class Outcome(NamedTuple):
    """What became of one request. Durations are seconds.

    `error` is None for every answer, whatever its status, and else why there is none: `connect` (refused or
    unreachable), `dropped` (closed before the whole answer), `malformed` (not HTTP), `unanswered` (sent, still waiting
    when the run ended), `unsent` (no connection came free for it). `latency` counts from the intended time to the
    answer or the failure; `since_sent` from the actual sending, None if there was none.
    """

    at: float
    lateness: float
    latency: float
    since_sent: float | None
    answer: Answer | None
    error: str | None
    label: Label = NO_LABEL


class Run(NamedTuple):
    """How a run went as a whole: seconds from the first moment to the last outcome, connections opened and refused."""

    seconds: float
    connections: int
    connect_failures: int
