"""The plot of `endcap bench batch`: one SVG, and one page with it, that need nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log2, log10
from typing import Protocol
from xml.sax.saxutils import escape, quoteattr

from ranking.batching import Figures

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 74, 24, 46, 44
TICKS = 4
STYLE = """
  .plot { --page: #fff; --text: #1b2023; --quiet: #5a6268; --line: #dfe1e0; --fit: #2f6ca8; --mark: #0a6b4d;
    font: 13px system-ui, sans-serif; background: var(--page); max-width: 100%; height: auto }
  @media (prefers-color-scheme: dark) { .plot { --page: #1a1e21; --text: #e4e7e9; --quiet: #9ea8b0; --line: #30363b;
    --fit: #74aee6; --mark: #5fcfa6 } }
  .plot text { fill: var(--quiet) } .plot .title { fill: var(--text); font-weight: 600 }
  .plot .back { fill: var(--page) } .plot .grid { stroke: var(--line) }
  .plot .fit { fill: none; stroke: var(--fit); stroke-width: 2 } .plot .dot { fill: var(--text) }
  .plot .knee { stroke: var(--quiet); stroke-dasharray: 4 4 }
  .plot .ring { fill: none; stroke: var(--mark); stroke-width: 2.5 }
  .plot .chosen { fill: var(--mark); font-weight: 600 }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Endcap: batches</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 54rem; padding: 0 1rem }}
h1 {{ font-size: 1.25rem }} table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
table {{ margin: 1rem 0 2rem }}
th, td {{ padding: .2rem .9rem; text-align: right; border-bottom: 1px solid #8885 }} caption {{ text-align: left;
font-weight: 600 }}</style></head>
<body><h1>What batches cost on this {device}</h1>
<p>Dots are measured, the line is a + b·n fitted to them, per query. The ring is the size worth having.</p>
{svg}
{tables}
</body></html>
"""


class Shown(Protocol):
    """As `service.commands.bench_batch.Measured`."""

    @property
    def placement(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def seconds(self) -> Sequence[float]: ...

    @property
    def figures(self) -> Figures: ...


def picture(placements: Sequence[Shown], device: str) -> str:
    """The SVG: a chart for each placement, one below the other."""
    height = HEIGHT * len(placements)
    charts = "".join(
        f'<g transform="translate(0 {HEIGHT * place})">{chart(one)}</g>\n' for place, one in enumerate(placements)
    )
    return (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label={quoteattr(f"Microseconds a query by batch size, {device}")}>'
        f'<style>{STYLE}</style><rect class="back" width="{WIDTH}" height="{height}"/>\n{charts}</svg>\n'
    )


def page(placements: Sequence[Shown], device: str) -> str:
    """The SVG in a page, with the figures as tables."""
    tables = "".join(table(one) for one in placements)
    return PAGE.format(device=escape(device), svg=picture(placements, device), tables=tables)


def chart(one: Shown) -> str:
    """Microseconds a query over the queries of a batch: x in doublings, y from 0."""
    found = one.figures
    last = found.sizes[-1]
    measured = [took / size * 1e6 for took, size in zip(one.seconds, found.sizes, strict=True)]
    fitted = [took / size * 1e6 for took, size in zip(found.seconds, found.sizes, strict=True)]
    step = nice(max(*measured, *fitted) / TICKS)
    top = step * ceil(max(*measured, *fitted) / step)

    def x(size: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (log2(size) / log2(last) if last > 1 else 0.5)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    def text(at_x: float, at_y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'

    parts = [text(LEFT, 24, f"{one.placement}, model {one.model}: microseconds a query", "title", "start")]
    for tick in range(round(top / step) + 1):
        at = y(tick * step)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(text(LEFT - 8, at + 4, f"{tick * step:,g}", anchor="end"))
    parts += [text(x(size), HEIGHT - BOTTOM + 18, str(size)) for size in found.sizes]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "queries in a batch"))
    if found.knee is not None and 1 <= found.knee <= last:
        at = x(found.knee)
        parts.append(f'<line class="knee" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(text(at + 5, TOP + 10, f"knee {found.knee:.1f}", anchor="start"))
    line = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in zip(found.sizes, fitted, strict=True))
    parts.append(f'<polyline class="fit" points="{line}"/>')
    for size, value in zip(found.sizes, measured, strict=True):
        parts.append(f'<circle class="dot" cx="{x(size):.1f}" cy="{y(value):.1f}" r="3.5"/>')
        if size == found.size:
            parts.append(f'<circle class="ring" cx="{x(size):.1f}" cy="{y(value):.1f}" r="8"/>')
            anchor = "start" if x(size) < WIDTH / 2 else "end"
            parts.append(text(x(size), y(value) - 14, f"{size} worth having", "chosen", anchor))
    return "".join(parts)


def nice(step: float) -> float:
    """The next of 1, 2, 5, 10, … that is no less."""
    unit = 10.0 ** floor(log10(step))
    return next(unit * one for one in (1, 2, 5, 10) if unit * one >= step * (1 - 1e-9))


def table(one: Shown) -> str:
    found = one.figures
    lines = [(size, took * 1e6, fitted * 1e6, took / size * 1e6)
             for size, took, fitted in zip(found.sizes, one.seconds, found.seconds, strict=True)]  # fmt: skip
    rows = "".join("<tr>" + "".join(f"<td>{cell:,.0f}</td>" for cell in line) + "</tr>" for line in lines)
    return (
        f"<table><caption>{escape(one.placement)}, model {escape(one.model)}</caption><thead><tr><th>queries</th>"
        f"<th>measured us</th><th>fitted us</th><th>us a query</th></tr></thead><tbody>{rows}</tbody></table>\n"
    )
