"""A replay's result as JSON: milliseconds, requests/s, and seconds counted from the end of the warm-up.

`null` stands where there is nothing to tell. docs/load.md says what each figure means.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from load.histogram import Durations
from load.processes import machine
from load.replay import Played, usable_cores
from load.replay_plan import Survey
from load.replay_tally import Seconds
from load.result import LATE_MS
from load.slo import Verdict

KIND, VERSION = "endcap replay", 1
POINTS = 100


def make_replay_result(
    played: Played,
    seen: Survey,
    verdicts: tuple[Verdict, ...],
    *,
    log: str,
    url: str,
    speed: float,
    rate: float | None,
    processes: int,
    warmup: float,
    duration: float,
) -> dict[str, Any]:
    """Put the figures together; `warmup` and `duration` (planned, without it) in seconds."""
    tally = played.tally.tally
    seconds = max(played.run.seconds - warmup, duration)
    statuses = Counter({str(status): count for status, count in sorted(tally.statuses.items(), key=str)})
    statuses.update(tally.errors)
    return {
        "kind": KIND,
        "version": VERSION,
        "log": log,
        "url": url,
        "started": played.started,
        "seconds": round(seconds, 3),
        "duration": round(duration, 3),
        "warmup": warmup,
        "speed": speed,
        "rate": rate,
        "processes": processes,
        "planned": tally.planned,
        "sent": tally.sent,
        "answered": tally.answered,
        "errors": tally.planned - tally.ok,
        "bad_rows": seen.bad,
        "complaints": list(seen.complaints),
        "client": _client(played),
        "latency_ms": spread(tally.latency, "p50", "p90", "p99", "p99.9", "max", "mean"),
        "since_sent_ms": spread(tally.since_sent, "p50", "p90", "p99", "p99.9", "max", "mean"),
        "percentiles": _curve(tally.latency),
        "groups": _groups(played),
        "seconds_series": _series(played.seconds),
        "statuses": dict(statuses),
        "degraded": dict(tally.degraded.most_common()),
        "degraded_answers": tally.degraded_answers,
        "unreadable": {"answers": tally.unreadable_answers, "server_timings": tally.unreadable_timings},
        "stages_ms": {
            stage: {**spread(durations, "p50", "p99", "mean"), "count": durations.count}
            for stage, durations in sorted(tally.stages.items())
        },
        "slo": [_bounded(verdict) for verdict in verdicts],
        "machine": {
            "line": machine(),
            "cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "client_cpu_share": round(played.cpu / played.run.seconds, 3),
            "stolen_cores": None if played.stolen_s is None else round(played.stolen_s / played.run.seconds, 3),
            "connections": played.run.connections,
            "connect_failures": played.run.connect_failures,
        },
        "versions": {
            "endcap": _endcap_version(),
            "python": platform.python_version(),
            "server": ", ".join(sorted(filter(None, played.tally.servers))) or None,
        },
    }


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write beside, then rename: a failure leaves what was there."""
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    beside.replace(path)


def spread(durations: Durations, *names: str) -> dict[str, float | None]:
    """Figures of a histogram in milliseconds, by name: `mean`, `max`, or `p` and a percentile."""
    figures = {}
    for name in names:
        if name in ("mean", "max"):
            value = durations.mean() if name == "mean" else durations.max()
        else:
            value = durations.percentile(float(name[1:]))
        figures[name] = None if value is None else round(value * 1e3, 3)
    return figures


def _client(played: Played) -> dict[str, Any]:
    figures = spread(played.tally.tally.lateness, "p50", "p99", "max")
    p99, planned = figures["p99"], played.tally.tally.planned
    share = f"{played.tally.late / planned:.2%} later than {LATE_MS:g} ms" if planned else ""
    if p99 is None:
        verdict = "nothing was due after the warm-up"
    elif p99 > LATE_MS:
        verdict = (
            f"the client was late: {p99:.2f} ms at p99, {share}; the latencies hold that, and it is not the server's"
        )
    else:
        verdict = f"the client kept the schedule: {p99:.2f} ms late at p99, {share}"
    return {
        **{f"lateness_{name}_ms": value for name, value in figures.items()},
        "late": played.tally.late,
        "late_share": played.tally.late / planned if planned else None,
        "kept": None if p99 is None else p99 <= LATE_MS,
        "verdict": verdict,
    }


def _curve(latency: Durations) -> list[tuple[float, float]]:
    """Percentiles that lie evenly on a scale of nines, up to 99.99."""
    curve = []
    for point in range(POINTS):
        percent = 100 * (1 - 10 ** (-4 * point / (POINTS - 1)))
        value = latency.percentile(percent)
        if value is not None:
            curve.append((round(percent, 4), round(value * 1e3, 3)))
    return curve


def _groups(played: Played) -> list[dict[str, Any]]:
    ordered = sorted(played.tally.groups.items(), key=lambda item: (item[0].endpoint, item[0].placement or "", item[0]))
    groups = []
    for group, durations in ordered:
        figures = spread(durations, "p50", "p90", "p99", "max")
        row = {"endpoint": group.endpoint, "placement": group.placement, "status": group.status}
        groups.append({**row, "count": durations.count, **{f"{name}_ms": value for name, value in figures.items()}})
    return groups


def _series(seconds: Seconds) -> list[dict[str, Any]]:
    series = []
    for number in range(len(seconds)):
        cell, latency = seconds[number]
        counts = {name: getattr(cell, name) for name in ("intended", "sent", "answered", "errors", "degraded")}
        figures = {f"{name}_ms": value for name, value in spread(latency, "p50", "p99", "max").items()}
        series.append({"second": number, **counts, "statuses": dict(sorted(cell.statuses.items())), **figures})
    return series


def _bounded(verdict: Verdict) -> dict[str, Any]:
    """The bound and the value as they are written: milliseconds, or percent of the requests."""
    scale = 100.0 if verdict.bound.metric in ("errors", "degraded") else 1e3
    value = None if verdict.measured is None else round(verdict.measured * scale, 4)
    return {"name": verdict.bound.metric, "bound": verdict.bound.text, "value": value, "met": verdict.met}


def _endcap_version() -> str | None:
    try:
        return version("endcap")
    except PackageNotFoundError:
        return None  # from a checkout that is not installed
