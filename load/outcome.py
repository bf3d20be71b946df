"""What goes into a run and what comes out of it, known to those who play it and to those who add it up."""

from __future__ import annotations

from typing import Generic, NamedTuple, Protocol, TypeVar

Payload = TypeVar("Payload")


class Label(NamedTuple):
    """What a request asked for: `POST /v1/recommendations` of which placement (None: of none)."""

    endpoint: str
    placement: str | None


NO_LABEL = Label("", None)


class Planned(NamedTuple, Generic[Payload]):
    """A request to send `at` seconds after the start; `payload` is all of it, made ahead, as its transport sends it.

    `label` comes back with the outcome, for whoever adds it up.
    """

    at: float
    payload: Payload
    label: Label = NO_LABEL


class Answered(Protocol):
    """What a server answered, whatever the transport."""

    @property
    def status(self) -> int | str:
        """As the transport says it: 200, or `OK`."""

    @property
    def ok(self) -> bool:
        """Whether it is the answer that was asked for, and no refusal."""

    @property
    def server_timing(self) -> str:
        """What the server says that its stages took, in that header's grammar; empty where it says nothing."""

    @property
    def server(self) -> str:
        """Who the server says it is; empty where it does not say."""

    def degraded(self) -> list[str]:
        """What the server had to do without. Raises ValueError for an answer that cannot be read."""


class Outcome(NamedTuple):
    """What became of one request. Durations are seconds.

    `error` is None for every answer, whatever its status, and else why there is none: `connect` (refused or
    unreachable), `dropped` (closed before the whole answer), `malformed` (not HTTP), `UNAVAILABLE` (gRPC's word for the
    first two), `unanswered` (sent, still waiting when the run ended), `unsent` (no connection came free for it).
    `latency` counts from the intended time to the answer or the failure; `since_sent` from the actual sending, None if
    there was none.
    """

    at: float
    lateness: float
    latency: float
    since_sent: float | None
    answer: Answered | None
    error: str | None
    label: Label = NO_LABEL


class Run(NamedTuple):
    """How a run went as a whole: seconds from the first moment to the last outcome, connections opened and refused."""

    seconds: float
    connections: int
    connect_failures: int
