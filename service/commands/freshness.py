"""`endcap freshness`: how fresh every feature view is, as a running service sees it."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.live import Live
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
        shown.print(table(ask(url)))
        return
    with Live(console=console, auto_refresh=False) as live:
        for drawn in again(url):
            live.update(drawn, refresh=True)


def again(url: str) -> Iterator[Table | Text]:
    """A table every two seconds; while nobody answers, a line that says so."""
    while True:
        try:
            yield table(ask(url))
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


def table(report: FreshnessReport) -> Table:
    """A line a view: ages in the store (p50, p95, p99), p99 as served, and a cross where the SLO is missed."""
    found = Table(
        title=f"{report.project}, {report.at:%Y-%m-%d %H:%M:%S} UTC", caption=report.sample_error, box=box.SIMPLE_HEAD
    )
    for name in ("view", "SLO", "loaded", "newest", "covered", "p50 p95 p99 stored", *WINDOWS):
        found.add_column(name, justify="left" if name == "view" else "right", no_wrap=name == "view")
    for view in report.views:
        found.add_row(*(Text(cell, style="red" if "✗" in cell else "") for cell in line(view, report.at)))
    return found


WINDOWS = {"p99 5m": "5m", "p99 1h": "1h", "p99 24h": "24h"}


def line(view: ViewFreshnessReport, now: datetime) -> list[str]:
    sample = view.sample
    covered = NONE if sample is None else f"{1 - sample.missing - sample.outside_max_age:.1%}"
    return [
        view.view, span(view.slo_s), ago(view.last_materialized, now), ago(view.newest_event, now), covered,
        three(sample), *(last(view.served[window]) for window in WINDOWS.values()),
    ]  # fmt: skip


def three(sample: StoredSample | None) -> str:
    if sample is None or sample.age_s is None:
        return NONE
    ages: Ages = sample.age_s
    return f"{span(ages.p50)} {span(ages.p95)} {span(ages.p99)}{mark(sample.within_slo)}"


def last(served: Served) -> str:
    return NONE if served.age_s is None else f"{span(served.age_s.p99)}{mark(served.within_slo)}"


def mark(within: float | None) -> str:
    return f" ✗ {within:.0%}" if within is not None and within < TARGET else ""


def ago(at: datetime | None, now: datetime) -> str:
    return "never" if at is None else span(max(0.0, (now - at).total_seconds()))


def span(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    if seconds < 1:
        return f"{seconds * 1e3:.0f}ms"
    size, unit = next(one for one in UNITS if seconds >= one[0])
    return f"{seconds / size:.1f}".removesuffix(".0") + unit
