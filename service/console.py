"""What the commands say on a terminal: a line a step, a bar while it lasts, and what it read, dropped and wrote."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from features.progress import Report

# Bound to today's stdout, so that what a library prints can be caught without silencing the bars.
console = Console(file=sys.stdout, highlight=False)
errors = Console(stderr=True, highlight=False)


class Step:
    """One running step. Call it as a `Progress` to move its bar; `report` holds what to print at its end."""

    def __init__(self, bar: Progress | None, title: str) -> None:
        self.bar = bar
        self.task = bar.add_task(title, total=None) if bar else None
        self.report = Report()

    def __call__(self, done: int, total: int | None) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=done, total=total)


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Shows `title` with a moving bar on a terminal (elsewhere a plain line), then how long it took and its report."""
    began = time.perf_counter()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            running = Step(bar, title)
            yield running
    else:
        console.print(f"{title} …", soft_wrap=True, markup=False)
        running = Step(None, title)
        yield running
    console.print(f"[bold]{escape(title)}[/bold]: {time.perf_counter() - began:.1f} s", soft_wrap=True)
    show(running.report)


def show(report: Report) -> None:
    """One line for each kind of count, nothing for an empty one."""
    for verb, counts in (("read", report.read), ("dropped", report.dropped), ("wrote", report.wrote)):
        if counts:
            shown = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            console.print(f"  {verb}: {shown}", soft_wrap=True, markup=False)
    for note in report.notes:
        console.print(f"  {note}", soft_wrap=True, markup=False)
