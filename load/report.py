"""A run's result on a terminal: tables, then what to doubt, then the verdict."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from load.result import Bounded, Result


def render(result: Result, console: Console) -> None:
    """Show a result on a console. Durations are in milliseconds."""
    console.print(_facts(result))
    console.print(_durations(result))
    if result.client_late:
        console.print(
            f"[yellow]The client was late:[/] {_show(result.client_lateness_ms.p99)} ms at p99, "
            f"{_show(result.client_lateness_ms.max)} ms at most. The latencies above hold that time too; "
            "do not blame the server for it. Use an idler machine or a lower rate."
        )
    for name, count in (("answers", result.unreadable_answers), ("Server-Timing headers", result.unreadable_timings)):
        if count:
            console.print(f"[yellow]{count} {name} could not be read[/] and are missing from the shares and stages.")
    for bound in result.slo:
        measured = "nothing measured" if bound.measured is None else _measured(bound)
        console.print(f"{'[green]met   [/]' if bound.met else '[red]missed[/]'} {escape(bound.bound)}: {measured}")


def _facts(result: Result) -> Table:
    table = Table(show_header=False, box=None)
    rates = result.rates
    rows = {
        "machine": result.machine,
        "requests": f"{result.planned} planned, {result.sent} sent, {result.answered} answered, {result.ok} ok "
        f"in {result.seconds} s, {result.connections} connections",
        "requests/s": f"{rates.intended} intended, {rates.sent} sent, {rates.answered} answered, {rates.ok} ok",
        "statuses": _counts(result.statuses),
        "errors": f"{_share(result.error_share)} not answered 2xx; without any answer: {_counts(result.errors)}",
        "degraded": f"{_share(result.degraded_share)} of 2xx answers: {_counts(result.degraded)}",
        "client": f"{result.client_cpu_share:.0%} of a core",
        "stolen": "not known"
        if result.stolen_cores is None
        else f"{result.stolen_cores:.1%} of a core by the hypervisor",
    }
    if result.settings["pid"] and result.server is None:
        rows["server"] = "its process ended during the run"
    if result.server is not None:
        use = result.server
        per = "-" if use.cpu_s_per_1000 is None else f"{use.cpu_s_per_1000:.3f}"
        rows["server"] = f"{per} CPU s per 1,000 requests ({use.cpu_s:.2f} s in {use.processes} processes), "
        rows["server"] += f"{use.rss_mb:.0f} MB resident"
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def _durations(result: Result) -> Table:
    table = Table("ms", "count", "mean", "p50", "p90", "p99", "p99.9", "max", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    spreads = {
        "latency, from intended time": result.latency_ms,
        "of it, from sending (2xx)": result.since_sent_ms,
        "refused or broken": result.failures_ms,
        "client lateness": result.client_lateness_ms,
        **{f"stage {stage}": figures for stage, figures in result.stages_ms.items()},
    }
    for name, figures in spreads.items():
        if figures.count:
            values = (figures.mean, figures.p50, figures.p90, figures.p99, figures.p999, figures.max)
            table.add_row(escape(name), str(figures.count), *map(_show, values))
    return table


def _measured(bound: Bounded) -> str:
    return _share(bound.measured) if bound.bound.endswith("%") else f"{_show(bound.measured)} ms"


def _show(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.2f}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} x {count}" for name, count in counts.items()) or "none"
