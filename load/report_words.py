"""What a run came to, in words: the same on a terminal and on a page."""

from __future__ import annotations

from load.replay_file import Bound, Replay


def verdict(run: Replay) -> str:
    """One sentence: the SLO first, where there was one."""
    happened = (
        f"{run.answered} of {run.planned} requests were answered, p99 {ms(run.latency_ms.p99)}, "
        f"{share(run.error_share())} errors"
    )
    if not run.slo:
        return f"No SLO was asked for: {happened}."
    missed = [bound for bound in run.slo if not bound.met]
    if missed:
        return f"The SLO was missed: {', '.join(map(_measured, missed))}. {happened}."
    return f"The SLO was met: {', '.join(bound.bound for bound in run.slo)}. {happened}."


def lateness(run: Replay) -> str:
    """How far the client itself is to blame."""
    client = run.client
    said = f"{client.verdict[:1].upper()}{client.verdict[1:].rstrip('.')}."
    if client.lateness_max_ms is None:
        return said
    latest = ms(client.lateness_max_ms)
    return f"{said} {client.late} of {run.sent} requests left more than 1 ms late, the latest {latest}."


def sums(run: Replay) -> list[tuple[str, str]]:
    """The figures to see first."""
    figures = run.latency_ms
    return [
        ("p50", ms(figures.p50)),
        ("p99", ms(figures.p99)),
        ("p99.9", ms(figures.p999)),
        ("max", ms(figures.max)),
        ("intended", f"{run.rate_intended():.1f}/s"),
        ("answered", f"{run.answered / run.seconds:.1f}/s" if run.seconds else "-"),
        ("errors", share(run.error_share())),
        ("degraded", share(run.degraded_share())),
    ]


def ms(value: float | None) -> str:
    """Milliseconds with the digits that matter."""
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def share(value: float | None) -> str:
    """A share as percent."""
    return "-" if value is None else f"{value:.2%}".replace("%", " %")


def _measured(bound: Bound) -> str:
    if bound.value is None:
        return f"{bound.bound}, nothing measured"
    value = share(bound.value / 100) if bound.name in ("errors", "degraded") else ms(bound.value)
    return f"{bound.bound}, measured {value}"
