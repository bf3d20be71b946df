"""`endcap freshness` in terminals of several widths: a line a view, and nothing cut short."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from service.commands.freshness import TARGET, mark, table
from service.freshness_wire import Ages, FreshnessReport, Served, StoredSample, ViewFreshnessReport

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY_S = 86400.0


def view(name: str, age_s: float, within: float | None) -> ViewFreshnessReport:
    ages = Ages(age_s / 7, age_s / 2, age_s)
    served = Served(100, 0.0, 0.0, 0.0, 0.0, within, ages)
    sample = StoredSample(NOW, 500, 0.02, 0.01, within, ages)
    return ViewFreshnessReport(
        name, "user", 26 * 3600.0, 7 * DAY_S, NOW - timedelta(hours=5), NOW - timedelta(minutes=3), sample,
        dict.fromkeys(("5m", "1h", "24h"), served),
    )  # fmt: skip


REPORT = FreshnessReport(
    "shop", NOW, None, [view("user_activity", 9.3 * DAY_S, 0.612), view("item_stats", 2.6 * DAY_S, None)]
)


def shown(width: int) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width).print(table(REPORT, width))
    return output.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (140, ["SLO", "loaded", "newest", "covered", "stored", "p50/p95/p99", "p99", "5m", "p99", "1h", "p99", "24h"]),
        (100, ["SLO", "loaded", "newest", "covered", "stored", "p50/p95/p99", "p99", "5m", "p99", "1h", "p99", "24h"]),
        (80, ["SLO", "newest", "covered", "stored", "p50/p95/p99", "p99", "5m", "p99", "24h"]),
        (60, ["SLO", "stored", "p50/p95/p99", "p99", "5m", "p99", "24h"]),
    ],
)
def test_a_view_is_one_line_and_what_does_not_fit_is_left_out_not_cut(width: int, columns: list[str]) -> None:
    lines = shown(width)
    assert max(len(one) for one in lines) <= width and "…" not in "".join(lines)
    head = next(n for n, one in enumerate(lines) if one.strip().startswith("view"))
    assert lines[head].split() == ["view", *columns]
    activity, items = (one.split() for one in lines[head + 2 : head + 4])
    assert activity[0] == "user_activity" and "1.3d/4.7d/9.3d" in activity and "✗" in activity
    assert items[0] == "item_stats" and "8.9h/1.3d/2.6d" in items and items[-1] == "2.6d"
    assert ("61%" in activity) == (width == 140)


def test_a_share_that_misses_the_target_never_reads_as_if_it_did_not() -> None:
    assert mark(0.9899, True) == " ✗ 98%" and mark(0.9899, False) == " ✗"
    assert mark(TARGET, True) == "" == mark(None, True)
