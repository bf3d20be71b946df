"""Line charts as inline SVG. Lines differ by dash as well as by colour; a value is told where the pointer rests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from load.html import Html, joined, to_html

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 12, 28
# Spread by more than this, small values are told apart on a logarithmic scale only.
LOG_SPREAD = 40
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


class Line(NamedTuple):
    """Points (x, y) in order of x; None breaks the line. `style`: s1 to s4, a colour and a dash; under: broad, pale."""

    label: str
    points: Sequence[tuple[float, float | None]]
    style: str


class Axis(NamedTuple):
    """`place` maps a value to 0 (left, bottom) to 1; `ticks` are values and how they read; `note` says how it runs."""

    place: Callable[[float], float]
    ticks: list[tuple[float, str]]
    note: str = ""


def chart(name: str, lines: Sequence[Line], x: Axis, y: Axis, tell: Callable[[float], str]) -> Html:
    """A drawing with its legend. `name` is what those hear who do not see it; `tell` words an x."""
    parts = [_ticks(x, y)]
    parts += [_path(line, x, y) for line in lines]
    parts.append(_hover(lines, x, tell))
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{to_html(name)}">{joined(parts)}</svg>'
    return Html(legend(lines) + drawing)


def legend(lines: Sequence[Line]) -> Html:
    """Which line is which."""
    if len(lines) < 2:
        return Html("")
    entries = (
        f'<span><svg viewBox="0 0 38 10" aria-hidden="true"><path class="line {line.style}" d="M1,5H37"/></svg>'
        f"{to_html(line.label)}</span>"
        for line in lines
    )
    return Html(f'<div class="legend">{"".join(entries)}</div>')


def bar(share: float) -> Html:
    """A bar as long as a share, 0 to 1, of its cell."""
    width = 100 * min(max(share, 0.0), 1.0)
    return Html(
        f'<svg viewBox="0 0 100 8" preserveAspectRatio="none" style="height:.6rem;min-width:5rem" aria-hidden="true">'
        f'<rect class="bar" width="{width:.2f}" height="8"/></svg>'
    )


def seconds_axis(last: float) -> Axis:
    """Time from the start, in seconds."""
    high = max(last, 1.0)
    step = next((one for one in _STEPS_S if high / one <= 6), _STEPS_S[-1] * math.ceil(high / _STEPS_S[-1] / 6))
    return Axis(lambda at: at / high, [(at, clock(at)) for at in range(0, int(high) + 1, step)])


def nines_axis(top: float) -> Axis:
    """Percentiles, each nine as wide as the last; `top` in percent, below 100."""
    high = max(nines(top), 1.0)
    ticks = [(percent, f"p{percent:g}") for percent in (50, 90, 99, 99.9, 99.99) if nines(percent) <= high + 1e-9]
    return Axis(lambda percent: nines(percent) / high, ticks)


def nines(percent: float) -> float:
    """How many nines a percentile has: 1 for p90, 2 for p99; p100 has as many as p99.9999."""
    return -math.log10(max(1 - percent / 100, 1e-6))


def value_axis(values: Sequence[float], *, wide: bool = False) -> Axis:
    """From 0 to a little above the largest; `wide`: logarithmic where values above 0 are spread far."""
    above = [value for value in values if value > 0]
    if wide and above and max(above) / min(above) > LOG_SPREAD:
        return _log_axis(min(above), max(above))
    high = 1.04 * max(above, default=1.0)
    step = 10.0 ** math.floor(math.log10(high / 4))
    step *= next(one for one in (1, 2, 2.5, 5, 10) if high / (step * one) <= 5)
    return Axis(
        lambda value: value / high, [(step * tick, _short(step * tick)) for tick in range(int(high / step) + 1)]
    )


def clock(seconds: float) -> str:
    """A time from the start, as it reads on an axis."""
    if seconds < 120:
        return f"{seconds:g} s"
    if seconds < 7200:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    return f"{seconds / 3600:.4g} h"


def _log_axis(least: float, most: float) -> Axis:
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most) - 1e-9)
    every = max(1, (high - low) // 6)
    ticks = [(10.0**power, _short(10.0**power)) for power in range(low, high + 1, every)]
    bottom = 10.0**low
    return Axis(lambda value: (math.log10(max(value, bottom)) - low) / (high - low), ticks, "logarithmic scale")


def _short(value: float) -> str:
    return f"{value:.6g}" if value < 100_000 else f"{value:.3g}"


def _across(place: float) -> float:
    return LEFT + place * (WIDTH - LEFT - RIGHT)


def _down(place: float) -> float:
    return HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)


def _ticks(x: Axis, y: Axis) -> Html:
    parts = []
    for value, text in y.ticks:
        at = _down(y.place(value))
        parts.append(f'<path class="rule" d="M{LEFT},{at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{to_html(text)}</text>')
    for value, text in x.ticks:
        at = _across(x.place(value))
        anchor = "end" if at > WIDTH - RIGHT - 12 else "middle"
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{to_html(text)}</text>')
    return Html("".join(parts))


def _path(line: Line, x: Axis, y: Axis) -> Html:
    """A point between two gaps is a dot: a line of no length with round ends."""
    steps, pen_down = [], False
    for at, value in line.points:
        if value is None:
            pen_down = False
            continue
        spot = f"{_across(x.place(at)):.1f},{_down(min(max(y.place(value), 0.0), 1.0)):.1f}"
        steps.append(f"L{spot}" if pen_down else f"M{spot}h0")
        pen_down = True
    return Html(f'<path class="line {line.style}" stroke-linecap="round" d="{"".join(steps)}"/>')


def _hover(lines: Sequence[Line], x: Axis, tell: Callable[[float], str]) -> Html:
    """A band around every x, as wide as to halfway to its neighbours."""
    told: dict[float, list[str]] = {}
    for line in lines:
        for at, value in line.points:
            if value is not None:
                told.setdefault(at, []).append(f"{line.label} {value:.4g}")
    places = sorted(told)
    edges = [_across(x.place(at)) for at in places]
    middles = [LEFT, *((a + b) / 2 for a, b in pairwise(edges)), WIDTH - RIGHT]
    bands = (
        f'<rect class="hover" x="{middles[one]:.1f}" y="{TOP}" width="{max(middles[one + 1] - middles[one], 0.1):.1f}" '
        f'height="{HEIGHT - TOP - BOTTOM}"><title>{to_html(tell(at))}: {to_html(", ".join(told[at]))}</title></rect>'
        for one, at in enumerate(places)
    )
    return Html("".join(bands))
