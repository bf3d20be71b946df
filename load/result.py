"""A run's result: a struct of plain numbers, and its JSON. Its durations are milliseconds, its shares 0 to 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import orjson

from load.histogram import Durations
from load.outcome import Run
from load.slo import Verdict
from load.tally import Tally

# A sender later than this at p99 is part of what it measured: the figure asked of this client at 1,000 requests/s.
LATE_MS = 1.0


class Spread(msgspec.Struct, frozen=True):
    """How durations are spread, in milliseconds; None where none was measured."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
    max: float | None


class Rates(msgspec.Struct, frozen=True):
    """Requests/s over the measured time: due by the schedule, sent, answered at all, and answered 2xx."""

    intended: float
    sent: float
    answered: float
    ok: float


class Bounded(msgspec.Struct, frozen=True):
    """One bound of the SLO; `measured` and `limit` in milliseconds, or as shares from 0 to 1."""

    bound: str
    limit: float
    measured: float | None
    met: bool


class ServerUse(msgspec.Struct, frozen=True):
    """What the server's processes used: CPU seconds in all and for 1,000 requests sent, and memory at the end."""

    cpu_s: float
    cpu_s_per_1000: float | None
    rss_mb: float
    processes: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run measured after its warm-up. `settings` are the command's own; see Tally for what counts where."""

    settings: dict[str, Any]
    machine: str
    started: str
    seconds: float
    planned: int
    sent: int
    answered: int
    ok: int
    statuses: dict[str, int]
    errors: dict[str, int]
    error_share: float | None
    degraded_share: float | None
    degraded: dict[str, int]
    unreadable_answers: int
    unreadable_timings: int
    rates: Rates
    latency_ms: Spread
    since_sent_ms: Spread
    failures_ms: Spread
    client_lateness_ms: Spread
    client_late: bool
    client_cpu_share: float
    stolen_cores: float | None
    connections: int
    connect_failures: int
    stages_ms: dict[str, Spread]
    server: ServerUse | None
    slo: list[Bounded]


def spread(durations: Durations) -> Spread:
    """The figures of a histogram."""
    at = [durations.percentile(percent) for percent in (50, 90, 99, 99.9)]
    return Spread(durations.count, *(_ms(value) for value in (durations.mean(), *at, durations.max())))


def make_result(
    tally: Tally,
    run: Run,
    verdicts: tuple[Verdict, ...],
    *,
    settings: dict[str, Any],
    machine: str,
    started: str,
    warmup: float,
    client_cpu: float,
    stolen_s: float | None,
    server: ServerUse | None,
) -> Result:
    """Put a run's figures together. Seconds: `settings["duration"]`, `warmup`, `client_cpu` and `stolen_s`.

    The last two are of the whole run, warm-up included. `stolen_s` is what the hypervisor took from this machine:
    lateness that neither the client nor the server is to blame for.
    """
    # With every answer in early the run still lasted for its duration; with late ones, until the last.
    seconds = max(run.seconds - warmup, settings["duration"])
    lateness = spread(tally.lateness)
    return Result(
        settings=settings,
        machine=machine,
        started=started,
        seconds=round(seconds, 3),
        planned=tally.planned,
        sent=tally.sent,
        answered=tally.answered,
        ok=tally.ok,
        statuses={str(status): count for status, count in sorted(tally.statuses.items(), key=str)},
        errors=dict(tally.errors.most_common()),
        error_share=tally.error_share(),
        degraded_share=tally.degraded_share(),
        degraded=dict(tally.degraded.most_common()),
        unreadable_answers=tally.unreadable_answers,
        unreadable_timings=tally.unreadable_timings,
        rates=Rates(
            round(tally.planned / settings["duration"], 2),
            *(round(count / seconds, 2) for count in (tally.sent, tally.answered, tally.ok)),
        ),
        latency_ms=spread(tally.latency),
        since_sent_ms=spread(tally.since_sent),
        failures_ms=spread(tally.failures),
        client_lateness_ms=lateness,
        client_late=lateness.p99 is not None and lateness.p99 > LATE_MS,
        client_cpu_share=round(client_cpu / run.seconds, 3),
        stolen_cores=None if stolen_s is None else round(stolen_s / run.seconds, 3),
        connections=run.connections,
        connect_failures=run.connect_failures,
        stages_ms={stage: spread(durations) for stage, durations in tally.stages.items()},
        server=server,
        slo=[_bounded(verdict) for verdict in verdicts],
    )


def write_json(result: Result, path: Path) -> None:
    """Write beside, then rename: a failure leaves what was there."""
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(
        orjson.dumps(msgspec.to_builtins(result), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )
    beside.replace(path)


def _bounded(verdict: Verdict) -> Bounded:
    scale = 1.0 if verdict.bound.metric in ("errors", "degraded") else 1e3
    measured = None if verdict.measured is None else verdict.measured * scale
    return Bounded(verdict.bound.text, verdict.bound.limit * scale, measured, verdict.met)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)
