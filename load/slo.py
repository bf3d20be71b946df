"""Service level objectives on a command line: `p99=20ms,errors=0.1%`, each an upper bound on a run."""

from __future__ import annotations

import re
from typing import NamedTuple

from load.errors import LoadError
from load.tally import Tally

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]+)?)")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s)")
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")
_SHARES = ("errors", "degraded")


class Bound(NamedTuple):
    """`metric` is `p` and a percentile, or `max`, of latency in seconds, or a share of requests from 0 to 1."""

    metric: str
    limit: float
    text: str


class Verdict(NamedTuple):
    """One bound, what was measured (None: nothing to measure), and whether it was met. Nothing measured meets none."""

    bound: Bound
    measured: float | None
    met: bool


def parse_slo(text: str) -> tuple[Bound, ...]:
    """Read bounds separated by commas. Raises LoadError that names the part that makes no sense."""
    bounds = tuple(_parse_bound(part.strip()) for part in text.split(","))
    metrics = [bound.metric for bound in bounds]
    for metric in metrics:
        if metrics.count(metric) > 1:
            raise LoadError(f"SLO {text!r}: {metric} is bounded twice")
    return bounds


def judge(bounds: tuple[Bound, ...], tally: Tally) -> tuple[Verdict, ...]:
    """Hold a run against each bound."""
    verdicts = []
    for bound in bounds:
        measured = _measure(bound.metric, tally)
        verdicts.append(Verdict(bound, measured, measured is not None and measured <= bound.limit))
    return tuple(verdicts)


def _parse_bound(text: str) -> Bound:
    metric, equals, value = text.partition("=")
    if not equals:
        raise LoadError(f"SLO {text!r}: expected METRIC=LIMIT, such as p99=20ms or errors=0.1%")
    if metric in _SHARES:
        share = _SHARE.fullmatch(value)
        if share is None or float(share[1]) > 100:
            raise LoadError(f"SLO {text!r}: expected a share from 0% to 100%, such as {metric}=0.1%")
        return Bound(metric, float(share[1]) / 100, text)
    percentile = _PERCENTILE.fullmatch(metric)
    if metric != "max" and (percentile is None or float(percentile[1]) == 0):
        raise LoadError(f"SLO {text!r}: {metric!r} is none of p50, p99, p99.9 and so on, max, errors, degraded")
    duration = _DURATION.fullmatch(value)
    if duration is None or float(duration[1]) == 0:
        raise LoadError(f"SLO {text!r}: expected a duration above zero with its unit, such as {metric}=20ms")
    return Bound(metric, float(duration[1]) * _UNITS[duration[2]], text)


def _measure(metric: str, tally: Tally) -> float | None:
    if metric == "errors":
        return tally.error_share()
    if metric == "degraded":
        return tally.degraded_share()
    return tally.latency.max() if metric == "max" else tally.latency.percentile(float(metric[1:]))
