"""Results of replays, made by hand as `endcap replay` writes them."""

from __future__ import annotations

import math
from typing import Any


def replay(seconds: int = 60, slow: float = 1.0, **changes: Any) -> dict[str, Any]:
    """A run of 100 requests/s with a pause in its middle; `slow` stretches its latencies."""
    series: list[dict[str, Any]] = []
    for second in range(seconds):
        wave = slow * (3 + math.sin(second / 5))
        paused = second == seconds // 2
        figures = {"p50_ms": wave, "p99_ms": 80.0 if paused else 3 * wave, "max_ms": 140.0 if paused else 4 * wave}
        counts = {"intended": 100, "sent": 100, "answered": 99 if paused else 100, "errors": 3 if paused else 0}
        statuses = {"200": 80, "202": 17, "503": 2, "unanswered": 1} if paused else {"200": 80, "202": 20}
        series.append({"second": second, **counts, "degraded": 8 if paused else 1, "statuses": statuses, **figures})
    percents = [100 * (1 - 10 ** (-4 * point / 99)) for point in range(100)]
    stages = {name: {"count": 5990, "p50": ms, "p99": 3 * ms, "mean": 1.2 * ms} for name, ms in
              {"features": 0.4, "queue": 0.2, "rank": 1.1, "total": 2.4}.items()}  # fmt: skip
    groups = [
        {"endpoint": "POST /v1/recommendations", "placement": "home", "status": "200", "count": 5000},
        {"endpoint": "POST /v1/recommendations", "placement": "cart", "status": "503", "count": 3},
        {"endpoint": "POST /v1/events", "placement": None, "status": "202", "count": 996},
    ]
    result: dict[str, Any] = {
        "kind": "endcap replay", "version": 1, "log": "day.ndjson", "url": "http://127.0.0.1:8080",
        "started": "2026-11-25T10:00:00+00:00", "seconds": float(seconds), "duration": float(seconds), "speed": 1.0,
        "rate": None, "processes": 1,
        "planned": 100 * seconds, "sent": 100 * seconds, "answered": 100 * seconds - 1, "errors": 4,
        "bad_rows": 1, "complaints": ["day.ndjson: row 7: not JSON"],
        "client": {"lateness_p50_ms": 0.05, "lateness_p99_ms": 0.4, "lateness_max_ms": 2.0, "late": 3,
                   "verdict": "the client kept the schedule"},
        "latency_ms": {"p50": 3.0 * slow, "p90": 5.0 * slow, "p99": 12.0 * slow, "p99.9": 90.0, "max": 140.0,
                       "mean": 3.4 * slow},
        "percentiles": [[percent, slow * (2 + 140 / (1 + 10**4 * (1 - percent / 100)))] for percent in percents],
        "groups": [{**group, "p50_ms": 3.0, "p90_ms": 5.0, "p99_ms": 12.0, "max_ms": 140.0} for group in groups],
        "seconds_series": series,
        "statuses": {"200": 100 * seconds - 4, "503": 3, "unanswered": 1},
        "degraded": {"candidates": 60, "ranker": 7}, "degraded_answers": 67,
        "stages_ms": stages,
        "slo": [{"name": "p99", "bound": "p99=50ms", "value": 12.0 * slow, "met": 12.0 * slow <= 50},
                {"name": "errors", "bound": "errors=0.1%", "value": 0.0667, "met": True}],
        "machine": {"line": "2 x Made Up CPU, Linux 6.1, Python 3.11.7", "usable_cores": 2, "stolen_cores": None},
        "versions": {"endcap": "0.1.0", "python": "3.11.7", "server": "endcap"},
    }  # fmt: skip
    return result | changes
