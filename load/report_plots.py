"""The drawings of a report: of one run, or of two in the same frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

from load.html import Html, figure
from load.replay_file import Replay, Second
from load.svg import Axis, Line, chart, clock, nines_axis, seconds_axis, value_axis

# Longer runs are drawn with several seconds to a point: a chart is some 400 points wide.
MOST_POINTS = 300
# Of two runs, A is drawn in the first style of a kind and B in the second: they differ by dash too.
STYLES = ("s1", "s2", "s3")
# So many lines are still told apart; what is rarer shares the last.
MOST_STATUSES = 4


def plots(runs: Sequence[Replay]) -> list[Html]:
    """Figures of one or two runs, in order of interest."""
    drawn = [_by_percentile(runs)]
    if len(runs) == 1:
        drawn.append(
            _over_time("Latency over time, ms", runs, [("p50", "p50_ms"), ("p99", "p99_ms"), ("max", "max_ms")])
        )
    else:
        drawn.append(_over_time("p99 over time, ms", runs, [("p99", "p99_ms")]))
        drawn.append(_over_time("p50 over time, ms", runs, [("p50", "p50_ms")]))
        drawn.append(_over_time("Longest of each second, ms", runs, [("max", "max_ms")]))
    drawn += [_rates(runs), _shares(runs), *(_statuses(runs, at) for at in range(len(runs)))]
    return drawn


def _by_percentile(runs: Sequence[Replay]) -> Html:
    title = "Latency by percentile, ms"
    lines = [Line(_label(runs, at, "latency"), run.percentiles, STYLES[at]) for at, run in enumerate(runs)]
    if not any(line.points for line in lines):
        return figure(title, [], "Nothing was answered.")
    x = nines_axis(max(line.points[-1][0] for line in lines if line.points))
    y = value_axis([value or 0.0 for line in lines for _, value in line.points], wide=True)
    under = f"From the intended time. Each further nine takes as much room as the last. {_note(y.note)}"
    return figure(title, [chart(title, lines, x, y, lambda percent: f"p{percent:g}")], under)


def _over_time(title: str, runs: Sequence[Replay], kinds: Sequence[tuple[str, str]]) -> Html:
    lines = []
    for at, run in enumerate(runs):
        for kind, (name, field) in enumerate(kinds):
            points = thinned([(second.second, getattr(second, field)) for second in run.seconds_series], max)
            lines.append(Line(_label(runs, at, name), points, STYLES[at + kind]))
    y = value_axis([value for line in lines for _, value in line.points if value is not None], wide=True)
    under = f"Of the requests due in each second{_grouped(runs, 'the largest')}. {_note(y.note)}"
    return figure(title, [chart(title, lines, _time(runs), y, clock)], under)


def _rates(runs: Sequence[Replay]) -> Html:
    title = "Requests/s: intended and achieved"
    lines = []
    for at, run in enumerate(runs):
        points = thinned([(second.second, second.intended) for second in run.seconds_series], fmean)
        lines.append(Line(_label(runs, at, "intended"), points, ("under", "under b")[at]))
    for at, run in enumerate(runs):
        for name in ("sent", "answered") if len(runs) == 1 else ("answered",):
            points = thinned([(second.second, getattr(second, name)) for second in run.seconds_series], fmean)
            lines.append(Line(_label(runs, at, name), points, STYLES[at + (name == "sent")]))
    y = value_axis([value for line in lines for _, value in line.points if value is not None])
    under = (
        f"Sent: that second's requests that went out; answered: those that were answered{_grouped(runs, 'the mean')}."
    )
    return figure(title, [chart(title, lines, _time(runs), y, clock)], under)


def _shares(runs: Sequence[Replay]) -> Html:
    title = "Errors and degraded answers, %"
    lines = []
    for at, run in enumerate(runs):
        for kind, name in enumerate(("errors", "degraded")):
            points = thinned([(second.second, _percent(second, name)) for second in run.seconds_series], fmean)
            lines.append(Line(_label(runs, at, name), points, f"s{1 + kind + 2 * at}"))
    y = value_axis([value for line in lines for _, value in line.points if value is not None])
    under = f"Of the requests due in each second{_grouped(runs, 'the mean')}. "
    under += "Errors: not answered 2xx (gRPC: OK), or not at all."
    return figure(title, [chart(title, lines, _time(runs), y, clock)], under)


def _statuses(runs: Sequence[Replay], at: int) -> Html:
    title = "How the requests of each second ended" if len(runs) == 1 else f"How those of {'AB'[at]} ended, each second"
    series, totals = runs[at].seconds_series, Counter[str]()
    for second in series:
        totals.update(second.statuses)
    ordered = [name for name, _ in totals.most_common()]
    told = MOST_STATUSES if len(ordered) <= MOST_STATUSES else MOST_STATUSES - 1
    kinds = {name: [name] for name in ordered[:told]}
    if ordered[told:]:
        kinds["others"] = ordered[told:]
    lines = []
    for style, (name, statuses) in enumerate(kinds.items(), start=1):
        counts = [(one.second, float(sum(one.statuses.get(status, 0) for status in statuses))) for one in series]
        points = [(second, value or None) for second, value in thinned(counts, fmean)]
        lines.append(Line(name, points, f"s{style}"))
    y = value_axis([value for line in lines for _, value in line.points if value is not None], wide=True)
    under = f"By status, or why there was no answer{_grouped(runs, 'the mean')}. A gap: none. {_note(y.note)}"
    return figure(title, [chart(title, lines, _time(runs), y, clock)], under)


def thinned(
    series: Sequence[tuple[int, float | None]], of_many: Callable[[list[float]], float]
) -> list[tuple[float, float | None]]:
    """(second, value) pairs, of which so many are put together by `of_many` that at most MOST_POINTS are left."""
    every = max(-(-len(series) // MOST_POINTS), 1)
    points: list[tuple[float, float | None]] = []
    for start in range(0, len(series), every):
        values = [value for _, value in series[start : start + every] if value is not None]
        points.append((series[start][0], of_many(values) if values else None))
    return points


def _label(runs: Sequence[Replay], at: int, name: str) -> str:
    return name if len(runs) == 1 else f"{'AB'[at]} {name}"


def _time(runs: Sequence[Replay]) -> Axis:
    return seconds_axis(max((run.seconds_series[-1].second for run in runs if run.seconds_series), default=0))


def _percent(second: Second, name: str) -> float | None:
    return 100 * getattr(second, name) / second.intended if second.intended else None


def _grouped(runs: Sequence[Replay], which: str) -> str:
    longest = max(len(run.seconds_series) for run in runs)
    return f", {which} of every {-(-longest // MOST_POINTS)} s" if longest > MOST_POINTS else ""


def _note(note: str) -> str:
    return f"{note.capitalize()}." if note else ""
