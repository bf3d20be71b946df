from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from load.http1 import Answer
from load.outcome import Outcome, Run
from load.report import render
from load.result import Result, make_result, write_json
from load.slo import judge, parse_slo
from load.tally import Tally


def outcome(at: float, *, lateness: float = 0.0001, body: bytes = b'{"degraded":[]}', timing: str = "") -> Outcome:
    return Outcome(at, lateness, lateness + 0.01, 0.01, Answer(200, timing, body), None)


def result(*outcomes: Outcome, slo: str = "p99=20ms") -> Result:
    tally = Tally(since=1.0)
    for each in outcomes:
        tally.add(each)
    settings: dict[str, Any] = {"duration": 2.0, "pid": []}
    verdicts = judge(parse_slo(slo), tally)
    given: dict[str, Any] = {
        "machine": "m",
        "started": "now",
        "warmup": 1.0,
        "client_cpu": 0.3,
        "stolen_s": 0.6,
        "server": None,
    }
    return make_result(tally, Run(3.0, 1, 0), verdicts, settings=settings, **given)


def shown(figures: Result) -> str:
    out = io.StringIO()
    render(figures, Console(file=out, width=200))
    return out.getvalue()


def test_what_was_due_in_the_warm_up_is_not_counted() -> None:
    figures = result(outcome(0.5), outcome(1.5), outcome(2.5))
    assert figures.planned == 2
    assert figures.rates.intended == 1.0


def test_stage_times_and_degraded_shares_come_from_the_answers() -> None:
    answers = [outcome(1.0, timing=f"rank;dur={ms}", body=b'{"degraded":["user_recent"]}') for ms in (1, 3)]
    figures = result(*answers, outcome(1.0), outcome(1.0))
    assert figures.stages_ms["rank"].mean == pytest.approx(2)
    assert figures.stages_ms["rank"].p99 == pytest.approx(3, rel=0.01)
    assert (figures.degraded_share, figures.degraded) == (0.5, {"user_recent": 2})


def test_answers_and_headers_that_cannot_be_read_are_counted_and_said() -> None:
    figures = result(outcome(1.0, body=b"\xff"), outcome(1.0, body=b"[]"), outcome(1.0, timing="a;dur=soon"))
    assert (figures.unreadable_answers, figures.unreadable_timings) == (2, 1)
    assert "2 answers could not be read" in shown(figures)


def test_a_late_client_says_so_and_one_in_time_does_not() -> None:
    late = result(outcome(1.0, lateness=0.05))
    assert late.client_late
    assert "The client was late: 50.00 ms at p99" in shown(late)
    in_time = result(outcome(1.0))
    assert not in_time.client_late
    assert "The client was late" not in shown(in_time)


def test_what_the_hypervisor_took_is_shown_beside_the_lateness() -> None:
    assert "20.0% of a core by the hypervisor" in shown(result(outcome(1.0)))


def test_quick_failures_do_not_flatter_the_latency_and_endless_ones_count_in_it() -> None:
    quick = [Outcome(1.0, 0.0, 0.0001, 0.0001, None, "dropped") for _ in range(50)]
    waiting = Outcome(1.0, 0.0, 5.0, None, None, "unsent")
    figures = result(outcome(1.0), waiting, *quick)
    assert figures.latency_ms.count == 2
    assert figures.latency_ms.max == pytest.approx(5000)
    assert figures.failures_ms.count == 50
    assert figures.errors == {"dropped": 50, "unsent": 1}


def test_the_table_shows_met_and_missed_bounds() -> None:
    text = shown(result(outcome(1.0), slo="p99=20ms,max=5ms,errors=0%"))
    assert "met    p99=20ms: 10.10 ms" in text
    assert "missed max=5ms: 10.10 ms" in text
    assert "met    errors=0%: 0.00%" in text


def test_a_run_without_any_answer_can_be_shown_and_written(tmp_path: Path) -> None:
    figures = result(slo="p99=20ms")
    write_json(figures, tmp_path / "out.json")
    assert orjson.loads((tmp_path / "out.json").read_bytes())["latency_ms"]["p99"] is None
    assert "missed p99=20ms: nothing measured" in shown(figures)


def test_a_result_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    (tmp_path / "out.json.part").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_json(result(outcome(1.0)), path)
    assert path.read_text() == "old"
