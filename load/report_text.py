"""One run or two on a terminal: the verdict, the figures, what changed, what to doubt."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from load.replay_file import Replay
from load.report_pair import deltas, warnings
from load.report_words import lateness, ms, share, sums, verdict


def render(runs: Sequence[Replay], console: Console) -> None:
    """Show one run, or two with what changed from the first to the second."""
    for name, run in [("", runs[0])] if len(runs) == 1 else zip(("A: ", "B: "), runs, strict=True):
        missed = not all(bound.met for bound in run.slo)
        console.print(escape(f"{name}{run.log} against {run.url}, {run.started}"))
        console.print(escape(verdict(run)), style="red" if missed else "green" if run.slo else "")
        console.print(escape(lateness(run)))
        console.print(escape(", ".join(f"{what} {value}" for what, value in sums(run))))
    if len(runs) == 1:
        console.print(_groups(runs[0]))
        return
    for warning in warnings(*runs):
        console.print(f"[yellow]Not comparable?[/] {escape(warning)}")
    console.print(_deltas(*runs))


def _groups(run: Replay) -> Table:
    table = _table("", "status", "count", "p50", "p90", "p99", "max")
    for one in run.groups:
        name = f"{one.endpoint} {one.placement or ''}".strip()
        figures = map(ms, (one.p50_ms, one.p90_ms, one.p99_ms, one.max_ms))
        table.add_row(escape(name), escape(str(one.status)), str(one.count), *figures)
    return table


def _deltas(a: Replay, b: Replay) -> Table:
    table = _table("", "A", "B", "B, beside A")
    for one in deltas(a, b):
        values = (
            share(value) if one.unit == "share" else "-" if value is None else f"{value:.4g} {one.unit}"
            for value in (one.a, one.b)
        )
        table.add_row(escape(one.name), *values, one.words)
    return table


def _table(*head: str) -> Table:
    table = Table(*head, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
