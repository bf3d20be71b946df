"""What `GET /v1/engine` answers. Times are in seconds, rates in queries/s, all of one process."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from ranking.batching import Figures
from ranking.capacity import Expected


class BatchPoint(Struct, frozen=True):
    """A batch of `size` typical queries: what it takes, as fitted, and what that is for each of them."""

    size: int
    seconds: float
    seconds_a_query: float


class Batches(Struct, frozen=True):
    """What was learned of batches. A batch grows to what `worth_having` typical queries take, under a long queue to
    `fastest`. At the `knee` half of its time is `fixed_s` (0: never, null: always)."""

    worth_having: int
    fastest: int
    knee: float | None
    typical_rows: float
    fixed_s: float
    query_s: float
    row_s: float
    curve: list[BatchPoint]

    @classmethod
    def of(cls, one: Figures) -> Batches:
        points = [BatchPoint(size, took, took / size) for size, took in zip(one.sizes, one.seconds, strict=True)]
        return cls(one.size, one.fastest, one.knee, one.typical_rows, one.fixed_s, one.query_s, one.row_s, points)


class Measured(Struct, frozen=True):
    """Quantiles of the stage `engine`, from the submitted query to its answer."""

    p50_s: float
    p99_s: float


class ForecastAt(Struct, frozen=True):
    """What the same stage is expected to take at a rate; null where more come than get done."""

    rate: float
    p50_s: float | None
    p99_s: float | None

    @classmethod
    def of(cls, one: Expected) -> ForecastAt:
        return cls(one.rate, one.p50_s, one.p99_s)


class Forecast(Struct, frozen=True):
    """`now` and `twice`: at this rate and at twice this rate; null where nobody asks. `capacity`: the rate up to which
    p99 is within the SLO, null where it is at none. `loop_s`: the event loop's CPU for each query besides its batch,
    null where too little was asked to tell."""

    at: datetime
    loop_s: float | None
    now: ForecastAt | None
    twice: ForecastAt | None
    capacity: float | None


class EngineReport(Struct, frozen=True):
    """The engine of the process `pid`, one of `workers`: in the last `window_s` seconds, and as it is expected to be.

    `busy`: share of the time in which a batch was running. `measured` is null where nothing was answered, `forecast`
    where too little was for one.
    """

    at: datetime
    pid: int
    workers: int
    window_s: float
    rate: float
    busy: float
    slo_s: float
    batches: Batches
    measured: Measured | None
    forecast: Forecast | None
