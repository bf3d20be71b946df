"""What `endcap diff` found, as one page."""

from __future__ import annotations

from typing import Any

from load.diff_text import HEAD, cells, facts, notes, number, rows, sentence, share, whose
from load.html import Html, folded, heading, page, paragraph, section, table, tiles

GUIDE = (
    "@k: the share of the first k that both lists have; whole: of the longer (a rank's items are given). RBO: "
    "rank-biased overlap at p = 0.9; the first ten carry 86 % of it. tau: Kendall's, the order of the items that both "
    "have, -1 to 1. Score shift: how far apart the two scores of one item are, on average and for 95 %."
)


def render(result: dict[str, Any]) -> str:
    """A document that needs nothing else; `result` is the command's JSON."""
    figures, verdict = result["all"], result["verdict"]
    kind = "verdict" if verdict is None else f"verdict {'good' if verdict['met'] else 'bad'}"
    parts = [
        heading("How the answers differ", f"{result['log']}, {result['started']}"),
        paragraph(sentence(result), kind),
        *(paragraph(note, "note") for note in notes(result)),
        tiles(
            [
                ("same items, whole list", share(figures["overlap"]["count"])),
                ("same first item", share(figures["overlap"]["1"])),
                ("same list", share(figures["identical"])),
                ("rank-biased overlap", number(figures["rbo"])),
                ("Kendall's tau", number(figures["tau"])),
            ]
        ),
        section("By placement and segment"),
        table(HEAD, [(name, *cells(figures)) for name, figures in rows(result)]),
        paragraph(GUIDE, "quiet"),
        section("The users whose lists changed most"),
    ]
    parts += [_changed(changed) for changed in result["most_changed"]] or [paragraph("Every list was the same.")]
    parts += [section("What was asked of whom"), table((), facts(result).items(), "facts")]
    return page(f"Answers of {result['log']}", parts)


def _changed(changed: dict[str, Any]) -> Html:
    places = {side: {one["item_id"]: place for place, one in enumerate(changed[side], 1)} for side in ("a", "b")}
    lines = []
    for place in range(max(len(changed["a"]), len(changed["b"]))):
        line: list[object] = [place + 1]
        for side, other in (("a", "b"), ("b", "a")):
            if place >= len(changed[side]):
                line += ["", "", ""]
                continue
            item = changed[side][place]
            there = places[other].get(item["item_id"])
            line += [
                item["item_id"],
                number(item["score"]),
                "only here" if there is None else f"{other.upper()} {there}",
            ]
        lines.append(line)
    return folded(whose(changed), [table(("", "A", "score", "where in B", "B", "score", "where in A"), lines, "lists")])
