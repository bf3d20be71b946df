from __future__ import annotations

import pytest

from load.errors import LoadError
from load.http1 import Answer
from load.outcome import Outcome
from load.slo import judge, parse_slo
from load.tally import Tally


def answered(latency: float, status: int = 200) -> Outcome:
    return Outcome(0.0, 0.0, latency, latency, Answer(status, "", b'{"degraded":[]}'), None)


def test_bounds_are_read_with_their_units() -> None:
    bounds = parse_slo("p99=20ms, p99.9=1.5s,max=900us,errors=0.1%")
    assert [bound.metric for bound in bounds] == ["p99", "p99.9", "max", "errors"]
    assert [bound.limit for bound in bounds] == pytest.approx([0.02, 1.5, 0.0009, 0.001])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p99",
        "p99=",
        "p99=20",
        "p99=20%",
        "p99=-1ms",
        "p99=0ms",
        "p99=nanms",
        "p99=20ms,",
        "p99=20ms;errors=1%",
        "p0=1ms",
        "p100=1ms",
        "p999=1ms",
        "mean=1ms",
        "errors=5ms",
        "errors=0.1",
        "errors=101%",
        "p99<20ms",
        "p99=20ms,p99=30ms",
        "p99=20 ms",
        "p99=\u0662ms",
    ],
)
def test_nonsense_is_refused_in_one_line_that_quotes_it(text: str) -> None:
    with pytest.raises(LoadError, match=r"^SLO '.*$"):
        parse_slo(text)


def test_a_bound_is_met_up_to_its_limit_and_missed_above() -> None:
    tally = Tally()
    for outcome in (answered(0.010), answered(0.010), answered(0.030), answered(0.001, status=503)):
        tally.add(outcome)
    verdicts = judge(parse_slo("p50=11ms,max=29ms,errors=25%,degraded=0%"), tally)
    assert [verdict.met for verdict in verdicts] == [True, False, True, True]
    assert verdicts[2].measured == pytest.approx(0.25)
    assert not judge(parse_slo("errors=24.9%"), tally)[0].met


def test_where_nothing_was_measured_no_bound_is_met() -> None:
    assert [verdict.met for verdict in judge(parse_slo("p99=20ms,max=1s,errors=5%,degraded=5%"), Tally())] == [
        False
    ] * 4
