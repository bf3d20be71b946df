from __future__ import annotations

import io
import itertools
import time
from array import array

import pytest
from rich.console import Console

from load.replay import Progress
from load.replay_report import PLAIN_EVERY_S, Display, describe
from load.replay_tally import Cell, Seconds


def progress(*latencies_ms: int) -> Progress:
    seconds = Seconds()
    seconds.add({0: Cell(latencies=array("Q", (ms * 1000 for ms in latencies_ms)))})
    return Progress(elapsed=12.3, due=900, finished=880, late=3, errors=2, seconds=seconds)


def test_progress_tells_sent_late_errors_and_the_latest_percentiles() -> None:
    assert describe(progress(10, 10, 70), 1000) == (
        "12 s: 900 sent of about 1000, 3 late, 2 errors, p50 10.0 ms, p99 70.0 ms in the last 5 s"
    )
    assert describe(progress(), None) == "12 s: 900 sent, 3 late, 2 errors"  # nothing answered yet


def test_a_terminal_has_one_line_that_is_drawn_anew_and_gone_at_the_end() -> None:
    out = io.StringIO()
    with Display(Console(file=out, force_terminal=True, width=120), 1000) as display:
        display.show(progress(10))
        display.show(progress(20))
    assert "900 sent of about 1000" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")  # the line is erased: the result takes its place


def test_without_a_terminal_a_line_comes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(0, PLAIN_EVERY_S / 5)
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    out = io.StringIO()
    with Display(Console(file=out, width=40), None) as display:
        for _ in range(10):
            display.show(progress(10))
    assert [line[:14] for line in out.getvalue().splitlines()] == ["12 s: 900 sent"] * 2
