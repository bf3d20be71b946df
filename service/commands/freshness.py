"""`endcap freshness`: how fresh every feature view is, as a running service sees it."""

from __future__ import annotations

import http.client
import math
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from service.console import console
from service.deployment import Deployment
from service.errors import ServiceError
from service.freshness_wire import Ages, FreshnessReport, Served, StoredSample, ViewFreshnessReport

EVERY_S = 2.0
TARGET = 0.99
"""The share of rows within the SLO below which it counts as missed."""

UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))
NONE = "-"
WIDE = 140


def freshness(directory: Path, url: str | None, *, watch: bool) -> None:
    """Prints the table, with `watch` again and again. Raises ServiceError when nobody answers."""
    if url is None:
        service = Deployment.at(directory).config.service
        host = f"[{service.host}]" if ":" in service.host else service.host
        url = f"http://{host}:{service.port}"
    if not watch:
        # A pipe has no width, and rich would take 80 letters.
        shown = console if console.is_terminal else Console(file=console.file, width=WIDE)
        shown.print(table(ask(url), shown.width))
        return
    with Live(console=console, auto_refresh=False) as live:
        for drawn in again(url):
            live.update(drawn, refresh=True)


def again(url: str) -> Iterator[Table | Text]:
    """A table every two seconds; while nobody answers, a line that says so."""
    while True:
        try:
            yield table(ask(url), console.width)
        except ServiceError as error:
            yield Text(f"{datetime.now():%H:%M:%S} {error}; still trying", style="red")
        time.sleep(EVERY_S)


def ask(url: str) -> FreshnessReport:
    if not url.startswith(("http://", "https://")):
        raise ServiceError(f"{url!r} is no http address")
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/v1/freshness", timeout=5) as response:  # noqa: S310 - checked above
            return msgspec.json.decode(response.read(), type=FreshnessReport)
    except urllib.error.HTTPError as error:
        raise ServiceError(f"{url} says {error.code}: {error.read().decode(errors='replace')[:200]}") from error
    except http.client.InvalidURL as error:
        raise ServiceError(f"{url!r} is no http address: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise ServiceError(f"no service answers at {url}: {reason}; `endcap serve` starts one") from error
    except msgspec.MsgspecError as error:
        raise ServiceError(f"{url} answers something else than freshness: {error}") from error


def table(report: FreshnessReport, width: int) -> Table:
    """A line a view: ages in the store, p99 as served, and a cross where the SLO is missed.

    In less than all that takes, first the shares beside the crosses go, then columns, the last of DISPENSABLE last.
    """
    columns = list(COLUMNS)
    found = drawn(report, columns, shares=True)
    for dropped in (None, *DISPENSABLE):
        if measured(found) <= width:
            break
        columns = [name for name in columns if name != dropped]
        found = drawn(report, columns, shares=False)
    return found


def measured(found: Table) -> int:
    """How wide the table is with nothing cut short."""
    wide = Console(width=10_000)
    return Measurement.get(wide, wide.options, found).maximum


def drawn(report: FreshnessReport, columns: Sequence[str], *, shares: bool) -> Table:
    title = f"{report.project}, {report.at:%Y-%m-%d %H:%M:%S} UTC"
    found = Table(title=title, caption=report.sample_error, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        found.add_column(name, justify="left" if name == "view" else "right", no_wrap=True)
    for view in report.views:
        cells = line(view, report.at, shares)
        found.add_row(*(Text(cells[name], style="red" if CROSS in cells[name] else "") for name in columns))
    return found


COLUMNS = ("view", "SLO", "loaded", "newest", "covered", "stored p50/p95/p99", "p99 5m", "p99 1h", "p99 24h")
DISPENSABLE = ("loaded", "p99 1h", "covered", "newest", "p99 24h", "SLO")
CROSS = "✗"


def line(view: ViewFreshnessReport, now: datetime, shares: bool) -> dict[str, str]:
    """The cells by column; `shares` are told beside a cross where there is room."""
    sample = view.sample
    covered = NONE if sample is None else f"{1 - sample.missing - sample.outside_max_age:.1%}"
    return {
        "view": view.view, "SLO": span(view.slo_s), "loaded": ago(view.last_materialized, now),
        "newest": ago(view.newest_event, now), "covered": covered, "stored p50/p95/p99": three(sample, shares),
        **{f"p99 {window}": last(served, shares) for window, served in view.served.items()},
    }  # fmt: skip


def three(sample: StoredSample | None, shares: bool) -> str:
    if sample is None or sample.age_s is None:
        return NONE
    ages: Ages = sample.age_s
    return "/".join(span(one) for one in (ages.p50, ages.p95, ages.p99)) + mark(sample.within_slo, shares)


def last(served: Served, shares: bool) -> str:
    return NONE if served.age_s is None else f"{span(served.age_s.p99)}{mark(served.within_slo, shares)}"


def mark(within: float | None, shares: bool) -> str:
    """A cross where less than TARGET is within the SLO. Rounded down: what misses it never reads as if it did not."""
    if within is None or within >= TARGET:
        return ""
    return f" {CROSS} {math.floor(within * 100)}%" if shares else f" {CROSS}"


def ago(at: datetime | None, now: datetime) -> str:
    return "never" if at is None else span(max(0.0, (now - at).total_seconds()))


def span(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    if seconds < 1:
        return f"{seconds * 1e3:.0f}ms"
    size, unit = next(one for one in UNITS if seconds >= one[0])
    return f"{seconds / size:.1f}".removesuffix(".0") + unit
