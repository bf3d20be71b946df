"""The result of a replay, or two of them beside each other, as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from load import replay_file
from load.files import write_whole
from load.html import Html, folded, grid, heading, page, paragraph, section, table, tiles, to_html
from load.replay_file import Replay
from load.report_pair import client_was_late, deltas, hardware, warnings
from load.report_plots import plots
from load.report_words import lateness, ms, share, sums, verdict
from load.svg import bar

SIDES = ("A", "B")


def write(result: dict[str, Any], path: Path) -> None:
    """Write the page of a replay's result (the JSON of `endcap replay`). Raises LoadError."""
    write_whole(path, render([replay_file.check(result)]).encode())


def render(runs: Sequence[Replay]) -> str:
    """A document that needs nothing else, of one run or of two."""
    first = runs[0]
    if len(runs) == 1:
        title = f"Replay of {first.log}"
        parts = [heading(title, f"against {first.url}, {first.started}")]
    else:
        title = "Two replays beside each other"
        about = "; ".join(f"{side}: {run.log} against {run.url}, {run.started}" for side, run in _sides(runs))
        parts = [heading(title, about)]
        parts += [paragraph(warning, "note") for warning in warnings(*runs)]
    for name, run in _sides(runs):
        kind = "" if not run.slo else "good" if all(bound.met for bound in run.slo) else "bad"
        parts.append(paragraph(_named(name, verdict(run)), f"verdict {kind}"))
    if len(runs) == 1:
        if client_was_late(first):
            parts.append(paragraph(lateness(first), "note"))
        parts.append(tiles(sums(first)))
        parts += _bounds(first)
    else:
        parts += [section("What changed from A to B"), _deltas(*runs)]
    parts += [section("Over time, and by percentile"), grid(plots(runs))]
    for name, run in _sides(runs):
        parts += _tables(run, name)
    return page(title, parts)


def _sides(runs: Sequence[Replay]) -> list[tuple[str, Replay]]:
    return [("", runs[0])] if len(runs) == 1 else list(zip(SIDES, runs, strict=True))


def _named(name: str, text: str) -> str:
    return f"{name}: {text}" if name else text


def _bounds(run: Replay) -> list[Html]:
    if not run.slo:
        return []
    rows = []
    for bound in run.slo:
        unit = "%" if bound.name in ("errors", "degraded") else "ms"
        measured = "nothing measured" if bound.value is None else f"{bound.value:.4g} {unit}"
        rows.append((bound.bound, measured, "met" if bound.met else "missed"))
    return [table(("bound", "measured", ""), rows)]


def _deltas(a: Replay, b: Replay) -> Html:
    def shown(value: float | None, unit: str) -> str:
        if unit == "share":
            return share(value)
        return ms(value) if unit == "ms" else "-" if value is None else f"{value:.1f} {unit}"

    rows = [(one.name, shown(one.a, one.unit), shown(one.b, one.unit), one.words) for one in deltas(a, b)]
    return table(("", "A", "B", "B, beside A"), rows)


def _tables(run: Replay, name: str) -> list[Html]:
    parts = [section(_named(name, "By endpoint, placement and status")), _groups(run)]
    parts += [section(_named(name, "How requests ended")), _counts(run.statuses, run.planned)]
    if run.degraded:
        parts += [
            section(_named(name, "What answers had to do without")),
            _counts(run.degraded, run.answered),
            paragraph("Shares of all answers; an answer with two reasons counts in both.", "quiet"),
        ]
    if run.stages_ms:
        parts += [
            section(_named(name, "Where the server spent its time")),
            _stages(run),
            paragraph("From the answers' Server-Timing. A stage may lie within another.", "quiet"),
        ]
    parts += [section(_named(name, "How it was measured")), paragraph(lateness(run)), _facts(run)]
    if run.bad_rows:
        summary = f"{run.bad_rows} bad rows of the log were left out"
        parts.append(folded(summary, [paragraph(complaint) for complaint in run.complaints]))
    return parts


def _groups(run: Replay) -> Html:
    rows = [
        [
            f"{one.endpoint} {one.placement or ''}".strip(), one.status, one.count,
            *map(ms, (one.p50_ms, one.p90_ms, one.p99_ms, one.max_ms)),
        ]
        for one in run.groups
    ]  # fmt: skip
    return table(("", "status", "count", "p50", "p90", "p99", "max"), rows)


def _counts(counts: dict[str, int], whole: int) -> Html:
    rows = (
        (name, count, share(count / whole if whole else None), bar(count / whole if whole else 0.0))
        for name, count in counts.items()
    )
    return table(("", "count", "share", ""), rows)


def _stages(run: Replay) -> Html:
    longest = max((one.mean or 0.0 for one in run.stages_ms.values()), default=0.0)
    ordered = sorted(run.stages_ms.items(), key=lambda stage: -(stage[1].mean or 0.0))
    rows = (
        (name, one.count, ms(one.p50), ms(one.p99), ms(one.mean), bar((one.mean or 0.0) / longest if longest else 0.0))
        for name, one in ordered
    )
    return table(("stage", "count", "p50", "p99", "mean", ""), rows)


def _facts(run: Replay) -> Html:
    facts: list[tuple[str, object]] = [
        ("log", run.log),
        ("address", run.url),
        ("started", run.started),
        (
            "played",
            f"{run.seconds:g} s at {f'speed {run.speed:g}' if run.rate is None else f'{run.rate:g} requests/s'}",
        ),
        ("client processes", run.processes),
        ("machine", hardware(run)),
    ]
    if not isinstance(run.machine, str):
        facts += [(name.replace("_", " "), value) for name, value in run.machine.items() if name != "line"]
    facts += [(f"version of {name}", value or "not known") for name, value in run.versions.items()]
    return table((), [(name, to_html("not known" if value is None else value)) for name, value in facts], "facts")
