"""What `endcap diff` found, on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

SHOWN = 10
HEAD = ("", "pairs", "same list", "@1", "@5", "@10", "whole", "RBO", "tau", "score shift", "p95")


def render(result: dict[str, Any], console: Console) -> None:
    """Show the figures: the tables, what to doubt, the users that changed most, the verdict."""
    console.print(_facts(result))
    console.print(agreement_table(result))
    for note in notes(result):
        console.print(f"[yellow]![/] {escape(note)}")
    for changed in result["most_changed"]:
        console.print(escape(whose(changed)), style="bold")
        console.print(_changed(changed))
    if result["verdict"] is not None:
        console.print(escape(sentence(result)), style="green" if result["verdict"]["met"] else "red")


def sentence(result: dict[str, Any]) -> str:
    """What it came to, in one sentence."""
    figures, verdict = result["all"], result["verdict"]
    if not figures["pairs"]:
        said = f"Nothing could be compared in {result['requests']} requests"
    else:
        said = (
            f"{figures['pairs']} pairs of answers: {share(figures['overlap']['count'])} of the items are the same, "
            f"{share(figures['identical'])} of the lists are, RBO {number(figures['rbo'])}"
        )
    if verdict is None:
        return said + "."
    failed = "none" if verdict["failed"] is None else share(verdict["failed"])
    bounds = f"overlap from {verdict['min_overlap']:g}, failed pairs up to {share(verdict['max_errors'])} ({failed})"
    return f"{'Met' if verdict['met'] else 'Missed'}: {bounds}. {said}."


def notes(result: dict[str, Any]) -> list[str]:
    """What a reader should know before he believes the figures."""
    said = []
    apart = result["degraded_differently"]
    if apart["pairs"]:
        said.append(
            f"{apart['pairs']} pairs were degraded differently and are not in the figures (they overlap "
            f"{share(apart['overlap']['count'])}): they differ by load or lateness, not by model."
        )
    if result["failed_pairs"]:
        sides = (f"{side.upper()} {counts(result['errors'][side])}" for side in ("a", "b"))
        said.append(f"{result['failed_pairs']} pairs failed and are not in the figures: {', '.join(sides)}.")
    if result["bad_rows"]:
        said.append(f"{result['bad_rows']} bad rows of the log were left out: {result['complaints'][0]}")
    if result["models"]["a"] and result["models"]["a"].keys() == result["models"]["b"].keys():
        said.append(f"Both sides answered with the same model: {', '.join(result['models']['a'])}.")
    elif result["models"]["a"]:
        said.append("Scores of different model versions may be of different scales: read their shift with care.")
    return said


def rows(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The rows of the table of figures, by what they are of."""
    groups = [("all", result["all"])]
    groups += [(f"placement {one['placement']}", one) for one in result["placements"]]
    groups += [(f"segment {one['segment']}", one) for one in result["segments"]]
    if result["degraded_differently"]["pairs"]:
        groups.append(("degraded differently", result["degraded_differently"]))
    return groups


def cells(figures: dict[str, Any]) -> list[str]:
    """One row's figures, as HEAD names them."""
    overlap, shift = figures["overlap"], figures["score_shift"]
    shares = [figures["identical"], *(overlap[k] for k in ("1", "5", "10", "count"))]
    numbers = [figures["rbo"], figures["tau"], shift["mean"], shift["p95"]]
    return [str(figures["pairs"]), *map(share, shares), *map(number, numbers)]


def share(value: float | None) -> str:
    """A share as percent."""
    return "-" if value is None else f"{value:.1%}"


def number(value: float | None) -> str:
    """Three digits that matter."""
    return "-" if value is None else f"{value:.3g}"


def counts(values: dict[str, int]) -> str:
    """Names with how often each came."""
    return ", ".join(f"{name} x {count}" for name, count in values.items()) or "none"


def facts(result: dict[str, Any]) -> dict[str, str]:
    """What was asked of whom, and what they said of themselves."""
    told = {
        "log": f"{result['log']}: {result['requests']} recommendations and ranks in {result['seconds']} s; "
        f"skipped: {counts(result['skipped'])}"
    }
    for side in ("a", "b"):
        version = result[f"version_{side}"]
        asked = result[f"url_{side}"] + ("" if version is None else f", version {version}")
        told[side.upper()] = (
            f"{asked}; models: {counts(result['models'][side])}; errors: {counts(result['errors'][side])}; "
            f"degraded: {counts(result['degraded'][side])}"
        )
    return told


def agreement_table(result: dict[str, Any]) -> Table:
    """The figures of all, of each placement and of each segment."""
    table = Table(*HEAD, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
        column.min_width = 5
    for name, figures in rows(result):
        table.add_row(escape(name), *cells(figures))
    return table


def _facts(result: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    for name, value in facts(result).items():
        table.add_row(name, escape(value))
    return table


def whose(changed: dict[str, Any]) -> str:
    """Whom a changed list was for."""
    user = "no user id" if changed["user"] is None else changed["user"]
    segment = "" if changed["segment"] is None else f", segment {changed['segment']}"
    return f"{user}, {changed['placement']}{segment}, request {changed['request']}: RBO {number(changed['rbo'])}"


def _changed(changed: dict[str, Any]) -> Table:
    table = Table("", "A", "score", "B", "score", box=None)
    for place in range(min(SHOWN, max(len(changed["a"]), len(changed["b"])))):
        cells = [str(place + 1)]
        for side, other in (("a", "b"), ("b", "a")):
            items = changed[side]
            if place < len(items):
                item = items[place]["item_id"]
                alone = all(one["item_id"] != item for one in changed[other])
                cells += [escape(item) + (" *" if alone else ""), number(items[place]["score"])]
            else:
                cells += ["", ""]
        table.add_row(*cells)
    return table
