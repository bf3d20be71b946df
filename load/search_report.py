"""What a search found: a table of its steps, and as JSON with every step's whole result."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from load.search import Found, Verdict

WORDS = {
    Verdict.MET: "[green]met[/]",
    Verdict.MISSED: "[red]missed[/]",
    Verdict.LATE: "[yellow]the client was late: no verdict about the server[/]",
}


def render_search(steps: list[dict[str, Any]], found: Found, console: Console) -> None:
    """Show each step, and then the rate."""
    if not steps:
        return
    bounds = [bound["bound"] for bound in steps[0]["result"]["slo"]]
    table = Table("requests/s", "intended", "answered", "client p99 ms", *map(escape, bounds), "verdict", box=None)
    for column in table.columns[:-1]:
        column.justify = "right"
    for step in steps:
        result = step["result"]
        lateness = result["client"]["lateness_p99_ms"]
        table.add_row(
            f"{step['rate']:.1f}",
            str(result["planned"]),
            str(result["answered"]),
            "-" if lateness is None else f"{lateness:.2f}",
            *("-" if bound["value"] is None else f"{bound['value']:.2f}" for bound in result["slo"]),
            WORDS[Verdict(step["verdict"])],
        )
    console.print(table)
    console.print(_conclusion(found, ", ".join(bounds)), soft_wrap=True)


def search_result(steps: list[dict[str, Any]], found: Found) -> dict[str, Any]:
    """The search as JSON; rates in requests/s."""
    why = None if found.why is None else str(found.why)
    return {
        "kind": "endcap search",
        "version": 1,
        "rate": found.rate,
        "ceiling": found.ceiling,
        "why": why,
        "steps": steps,
    }


def _conclusion(found: Found, slo: str) -> str:
    if found.rate is None:
        ceiling = f"{found.ceiling:.1f}" if found.ceiling is not None else "any"
        if found.why is Verdict.LATE:
            return f"no verdict: already at {ceiling} requests/s the client did not keep the schedule"
        return f"{slo} is missed already at {ceiling} requests/s"
    line = f"{slo} is met up to {found.rate:.1f} requests/s"
    if found.ceiling is None:
        return f"{line}, the highest rate that was to be tried"
    if found.why is Verdict.LATE:
        return f"{line}; at {found.ceiling:.1f} the client itself did not keep the schedule, so the server may do more"
    return f"{line} and missed at {found.ceiling:.1f}"
