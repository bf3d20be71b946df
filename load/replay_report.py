"""A replay on a terminal: how it stands while it runs, and what came of it."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from load.doors import GRPC
from load.replay import Progress

RECENT_S = 5
PLAIN_EVERY_S = 10.0


class Display:
    """Shows progress on a console: one line that is drawn anew on a terminal, elsewhere a line every ten seconds."""

    def __init__(self, console: Console, expected: float | None) -> None:
        """`expected` requests in all; None where nobody knows."""
        self._console, self._expected = console, expected
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._next = time.monotonic() + PLAIN_EVERY_S

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Take in how the run stands."""
        if self._live is not None:
            self._live.update(Text(describe(progress, self._expected)))
        elif time.monotonic() >= self._next:
            self._next += PLAIN_EVERY_S
            self._console.print(describe(progress, self._expected), highlight=False, soft_wrap=True)


def describe(progress: Progress, expected: float | None) -> str:
    """One line: what fell due, what came of it, and the latency of the last seconds."""
    recent = progress.seconds.recent(RECENT_S)
    of = "" if expected is None else f" of about {expected:.0f}"
    line = f"{progress.elapsed:.0f} s: {progress.due} sent{of}, {progress.late} late, {progress.errors} errors"
    if recent.count:
        p50, p99 = (1e3 * (recent.percentile(percent) or 0.0) for percent in (50, 99))
        line += f", p50 {p50:.1f} ms, p99 {p99:.1f} ms in the last {RECENT_S} s"
    return line


def render(result: dict[str, Any], console: Console) -> None:
    """Show a result. Durations are in milliseconds."""
    console.print(_facts(result))
    console.print(_groups(result))
    if result["stages_ms"]:
        console.print(_stages(result))
    for complaint in result["complaints"]:
        console.print(f"[yellow]bad row[/] {escape(complaint)}", soft_wrap=True)
    if result["bad_rows"] > len(result["complaints"]):
        console.print(f"[yellow]and {result['bad_rows'] - len(result['complaints'])} bad rows more[/]")
    for bound in result["slo"]:
        percent = bound["bound"].endswith("%")
        measured = "nothing measured" if bound["value"] is None else f"{bound['value']:.2f}{'%' if percent else ' ms'}"
        word = "[green]met   [/]" if bound["met"] else "[red]missed[/]"
        console.print(f"{word} {escape(bound['bound'])}: {measured}")
    colour = "yellow" if result["client"]["kept"] is False else "default"
    console.print(f"[{colour}]{escape(result['client']['verdict'])}[/]", soft_wrap=True, highlight=False)


def _facts(result: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    planned, duration, seconds = result["planned"], result["duration"], result["seconds"]
    intended = f"{planned / duration:.1f}" if duration else "-"
    machine = result["machine"]
    rows = {
        "machine": machine["line"],
        "server": result["versions"]["server"] or "did not say",
        "requests": f"{planned} planned, {result['sent']} sent, {result['answered']} answered, {result['errors']} "
        f"not {_good(result)}, {result['bad_rows']} bad rows in the log",
        "requests/s": f"{intended} intended over {duration:.1f} s, {result['answered'] / seconds:.1f} answered over "
        f"{seconds:.1f} s",
        "statuses": _counts(result["statuses"]),
        "degraded": f"{result['degraded_answers']} answers: {_counts(result['degraded'])}",
        "client": f"{_many(result['processes'])}, the busiest {machine['client_cpu_share']:.0%} of a core; "
        f"{machine['connections']} connections",
    }
    if machine["stolen_cores"] is not None:
        rows["stolen"] = f"{machine['stolen_cores']:.1%} of a core by the hypervisor"
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def _groups(result: dict[str, Any]) -> Table:
    table = Table("ms, from the intended time", "placement", "status", *("count", "p50", "p90", "p99", "max"), box=None)
    for column in table.columns[3:]:
        column.justify = "right"
    for group in result["groups"]:
        figures = (group[f"{name}_ms"] for name in ("p50", "p90", "p99", "max"))
        names = (escape(group["endpoint"]), escape(group["placement"] or "-"), group["status"])
        table.add_row(*names, str(group["count"]), *map(_ms, figures))
    latency = result["latency_ms"]
    total = (latency[name] for name in ("p50", "p90", "p99", "max"))
    table.add_row(f"{_good(result)} and never answered", "", "", "", *map(_ms, total), style="bold")
    return table


def _stages(result: dict[str, Any]) -> Table:
    table = Table("ms, as the server says", "count", "mean", "p50", "p99", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for stage, figures in result["stages_ms"].items():
        table.add_row(escape(stage), str(figures["count"]), *(_ms(figures[name]) for name in ("mean", "p50", "p99")))
    return table


def _good(result: dict[str, Any]) -> str:
    """The status of the answers that are no errors."""
    return "OK" if result["url"].startswith(GRPC) else "2xx"


def _many(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} x {count}" for name, count in counts.items()) or "none"
