"""Jobs as they are asked for and told of."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from service.wire import Id, Scalar

Kind = Literal["recommendations", "rank"]
State = Literal["queued", "preparing", "running", "cancelling", "succeeded", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled")

Callback = Annotated[str, Meta(max_length=2000, description="Told once the job has succeeded or failed (a webhook).")]


class JobRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Work that outlives a request. Exactly one of `user_ids`, `segment`, `parquet` and `rows` says for whom."""

    kind: Kind = "recommendations"
    user_ids: Annotated[list[Id], Meta(min_length=1)] | None = None
    segment: (
        Annotated[
            dict[Annotated[str, Meta(max_length=256)], Scalar | Annotated[list[Scalar], Meta(max_length=1000)]],
            Meta(description="Users of data/users.parquet by column: a value, or any of a list. {}: all of them."),
        ]
        | None
    ) = None
    parquet: (
        Annotated[str, Meta(max_length=2000, description="A path or https URL that `jobs.allow` names.")] | None
    ) = None
    rows: Annotated[list[dict[str, Any]], Meta(min_length=1, description="A request each.")] | None = None
    request: Annotated[dict[str, Any], Meta(description="Fields of every request that a row leaves out.")] = {}
    callback_url: Callback | None = None


class JobStatus(Struct, frozen=True):
    """How far a job is. `total` is known once its input is read, `rate` (rows a second) and `estimated_end` while it
    runs. `failed` rows are among the `done` ones: their line of the result says why."""

    id: str
    kind: Kind
    state: State
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    total: int | None
    done: int
    failed: int
    rate: float | None
    estimated_end: datetime | None
    error: str | None
    result: str


class JobList(Struct, frozen=True):
    """The newest first, 1,000 at most."""

    jobs: list[JobStatus]


class Line(Struct, frozen=True, omit_defaults=True):
    """A line of a result: the row's place in the input (from 0), and its answer or why there is none."""

    index: int
    user_id: str | None
    answer: Any = None
    error: str | None = None
