"""Pieces of a self-contained page: no script, nothing from elsewhere, light and dark, wide and narrow.

Text is escaped where it becomes HTML: `Html` is what has been, and `to_html` the one way from text to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """HTML that is fit to be shown: text in it has been escaped."""

    __slots__ = ()


STYLE = """
:root { color-scheme: light dark;
  --page: light-dark(#f7f7f5, #121517); --panel: light-dark(#fff, #1a1e21); --line: light-dark(#dfe1e0, #30363b);
  --text: light-dark(#1b2023, #e4e7e9); --quiet: light-dark(#5a6268, #9ea8b0); --good: light-dark(#0a6b4d, #5fcfa6);
  --warn: light-dark(#85500a, #e5b566); --bad: light-dark(#b3261e, #ff9489);
  --one: light-dark(#0a6b4d, #5fcfa6); --two: light-dark(#3355b5, #9db4ff); --three: light-dark(#9a3d7a, #f0a3d2);
  --four: light-dark(#85500a, #e5b566) }
*, ::before, ::after { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1.25rem 4rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.3rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.25rem 0 .75rem } p { margin: .35rem 0 }
h3 { font-size: .95rem; margin: 0 0 .25rem }
.quiet, figcaption { color: var(--quiet); font-size: .87rem }
.verdict { margin: 1rem 0; padding: .8rem 1rem; border: 1px solid var(--line); border-left: .4rem solid var(--quiet);
  border-radius: 8px; background: var(--panel); font-size: 1.05rem }
.good { border-left-color: var(--good) } .bad { border-left-color: var(--bad) }
.note { margin: .6rem 0; padding: .5rem .9rem; border-left: .25rem solid var(--warn); background: var(--panel) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; margin: 1rem 0 }
.tiles > div, figure, .wide, details { background: var(--panel); border: 1px solid var(--line); border-radius: 8px }
.tiles > div { padding: .6rem .9rem } .tiles b { display: block; font-size: 1.3rem; font-weight: 600 }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem }
figure { margin: 0; padding: .9rem 1rem .7rem; min-width: 0 } svg { display: block; width: 100%; height: auto }
svg text { fill: var(--quiet); font: 13px system-ui, sans-serif }
@media (max-width: 34rem) { svg text { font-size: 17px } } svg .rule { stroke: var(--line) }
svg .hover { fill: transparent } svg .hover:hover { fill: var(--quiet); fill-opacity: .18 }
svg .bar { fill: var(--one) }
.line { fill: none; stroke-width: 2; stroke-linejoin: round } .line.s1 { stroke: var(--one) }
.line.s2 { stroke: var(--two); stroke-dasharray: 7 4 } .line.s3 { stroke: var(--three); stroke-dasharray: 2 3 }
.line.s4 { stroke: var(--four); stroke-dasharray: 9 3 2 3 }
.line.under { stroke: var(--quiet); stroke-width: 7; stroke-opacity: .35; stroke-dasharray: none }
.line.under.b { stroke: var(--two) }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; font-size: .87rem }
.legend svg { display: inline-block; width: 2.4rem; height: .7rem; margin-right: .4rem; vertical-align: baseline }
.wide { overflow-x: auto; overflow-wrap: normal }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: .92rem } td, th { padding: .4rem .75rem; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top } tr:last-child > * { border-bottom: 0 } thead th { color: var(--quiet); font-size: .84rem }
.figures td { text-align: right; white-space: nowrap } .figures thead th:not(:first-child) { text-align: right }
.figures tbody th { font-weight: 500; min-width: 8.5rem; overflow-wrap: anywhere } thead th { white-space: nowrap }
.facts th { width: 11rem; font-weight: 500; color: var(--quiet) } .facts td, .lists td { overflow-wrap: anywhere }
.lists td { min-width: 3.5rem }
details { padding: .5rem .9rem; margin: .6rem 0 } summary { cursor: pointer }
"""


def to_html(text: object) -> Html:
    """Any value as text of a page or of an attribute in quotes; Html as it is."""
    return text if isinstance(text, Html) else Html(escape(str(text)))


def joined(parts: Iterable[Html]) -> Html:
    """Pieces one after the other, a line each."""
    return Html("\n".join(parts))


def page(title: str, parts: Iterable[Html]) -> str:
    """A whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{to_html(title)}</title><style>{STYLE}</style></head>\n<body>\n{joined(parts)}\n</body></html>\n"
    )


def heading(text: str, under: str = "") -> Html:
    """The title of the page, and what it is about."""
    return Html(f'<h1>{to_html(text)}</h1><p class="quiet">{to_html(under)}</p>')


def section(text: str) -> Html:
    """The heading of a section."""
    return Html(f"<h2>{to_html(text)}</h2>")


def paragraph(text: str, kind: str = "") -> Html:
    """A paragraph; `kind` is one of the style's: verdict, note, quiet, with good or bad."""
    return Html(f'<p class="{to_html(kind)}">{to_html(text)}</p>')


def tiles(figures: Iterable[tuple[str, str]]) -> Html:
    """Figures to see first: (what it is, its value)."""
    cells = (f'<div><span class="quiet">{to_html(name)}</span><b>{to_html(value)}</b></div>' for name, value in figures)
    return Html(f'<div class="tiles">{"".join(cells)}</div>')


def table(head: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "figures") -> Html:
    """A table whose first column names the rows. `kind`: figures (numbers to the right) or facts."""
    top = "".join(f'<th scope="col">{to_html(cell)}</th>' for cell in head)
    body = joined(
        Html(f'<tr><th scope="row">{to_html(first)}</th>{"".join(f"<td>{to_html(cell)}</td>" for cell in rest)}</tr>')
        for first, *rest in rows
    )
    thead = f"<thead><tr>{top}</tr></thead>" if head else ""
    return Html(f'<div class="wide"><table class="{kind}">{thead}<tbody>{body}</tbody></table></div>')


def figure(title: str, parts: Iterable[Html], under: str = "") -> Html:
    """A drawing with its title, and a line on how to read it."""
    caption = f"<figcaption>{to_html(under)}</figcaption>" if under else ""
    return Html(f"<figure><h3>{to_html(title)}</h3>{joined(parts)}{caption}</figure>")


def grid(figures: Iterable[Html]) -> Html:
    """Figures beside each other where there is room."""
    return Html(f'<div class="grid">{joined(figures)}</div>')


def folded(summary: str, parts: Iterable[Html]) -> Html:
    """Something to open by a click."""
    return Html(f"<details><summary>{to_html(summary)}</summary>{joined(parts)}</details>")
