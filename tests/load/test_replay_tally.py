from __future__ import annotations

import pickle
import tracemalloc
from array import array
from typing import Any

import pytest

from load.http1 import Answer
from load.outcome import Label, Outcome
from load.replay_tally import MAX_LABELS, OTHERS, Cell, Group, ReplayTally, Seconds

HOME = Label("POST /v1/recommendations", "home")


def outcome(at: float, latency: float = 0.01, status: int = 200, **fields: Any) -> Outcome:
    body = b'{"degraded":["user"]}' if fields.pop("degraded", False) else b'{"degraded":[]}'
    answer = Answer(status, "rank;dur=4", body, "stub/1")
    given = {"lateness": 0.0, "since_sent": latency, "answer": answer, "error": None, "label": HOME}
    return Outcome(at=at, latency=latency, **(given | fields))


def lost(at: float, error: str, latency: float = 0.01) -> Outcome:
    return Outcome(at, 0.0, latency, None if error == "unsent" else latency, None, error, HOME)


def add_up(*outcomes: Outcome, since: float = 0.0) -> tuple[ReplayTally, Seconds]:
    tally, seconds = ReplayTally(since), Seconds()
    for each in outcomes:
        tally.add(each)
    seconds.add(tally.news().cells)
    return tally, seconds


def test_each_endpoint_placement_and_status_has_a_histogram() -> None:
    similar = Label(HOME.endpoint, "similar")
    tally, _ = add_up(outcome(0), outcome(0, status=503), outcome(0, label=similar), lost(0, "dropped"))
    counts = {group: durations.count for group, durations in tally.groups.items()}
    assert counts == {
        Group(HOME.endpoint, "home", "200"): 1,
        Group(HOME.endpoint, "home", "503"): 1,
        Group(HOME.endpoint, "similar", "200"): 1,
        Group(HOME.endpoint, "home", "dropped"): 1,
    }


def test_paths_without_end_share_one_group_in_the_end() -> None:
    tally, _ = add_up(*(outcome(0, label=Label(f"GET /users/{n}", None)) for n in range(MAX_LABELS + 50)))
    assert len(tally.groups) == MAX_LABELS + 1
    assert tally.groups[Group(OTHERS.endpoint, None, "200")].count == 50


def test_a_request_counts_in_the_second_in_which_it_was_due_sent_and_answered() -> None:
    waited = outcome(0.9, latency=2.3, since_sent=1.0)  # sent at 2.2, answered at 3.2
    _, seconds = add_up(waited)
    cells = [seconds[number].cell for number in range(4)]
    assert [cell.intended for cell in cells] == [1, 0, 0, 0]
    assert [cell.sent for cell in cells] == [0, 0, 1, 0]
    assert [cell.answered for cell in cells] == [0, 0, 0, 1]
    assert seconds[0].latency.max() == 2.3
    assert len(seconds) == 4


def test_seconds_count_from_the_end_of_the_warm_up_and_leave_it_out() -> None:
    tally, seconds = add_up(outcome(1.9), outcome(2.1), since=2.0)
    assert tally.tally.planned == 1
    assert (len(seconds), seconds[0].cell.intended) == (1, 1)


def test_errors_and_degraded_answers_are_told_apart_in_a_second() -> None:
    _, seconds = add_up(outcome(0), outcome(0, degraded=True), outcome(0, status=500), lost(0, "unsent", 5.0))
    cell = seconds[0].cell
    assert (cell.intended, cell.errors, cell.degraded, cell.sent, cell.answered) == (4, 2, 1, 3, 3)
    assert cell.statuses == {"200": 2, "500": 1, "unsent": 1}
    assert seconds[0].latency.count == 3  # a quick 500 would flatter it, what still waits belongs in it
    assert seconds[0].latency.max() == 5.0


def test_late_counts_what_the_client_dispatched_more_than_a_millisecond_late() -> None:
    tally, _ = add_up(outcome(0, lateness=0.0009), outcome(0, lateness=0.0011))
    assert tally.late == 1


def test_processes_merged_are_as_one_that_saw_all() -> None:
    outcomes = [outcome(n / 10, 0.001 * n, 200 if n % 3 else 404, degraded=n % 2 == 0) for n in range(1, 40)]
    outcomes += [lost(1, "dropped"), lost(2, "unsent", 4.0)]
    whole, _ = add_up(*outcomes)
    merged = ReplayTally()
    for part in range(3):
        share, _ = add_up(*outcomes[part::3])
        merged.merge(pickle.loads(pickle.dumps(share)))  # as it comes from another process
    for name in ("planned", "sent", "answered", "ok", "statuses", "errors", "degraded_answers", "degraded"):
        assert getattr(merged.tally, name) == getattr(whole.tally, name), name
    for name in ("latency", "since_sent", "failures", "lateness"):
        mine, theirs = getattr(merged.tally, name), getattr(whole.tally, name)
        assert mine.count == theirs.count, name
        assert [mine.percentile(p) for p in (50, 90, 99)] == [theirs.percentile(p) for p in (50, 90, 99)], name
        assert (mine.mean(), mine.max()) == (pytest.approx(theirs.mean()), theirs.max()), name
    assert merged.tally.stages["rank"].count == whole.tally.stages["rank"].count
    assert merged.groups.keys() == whole.groups.keys()
    assert all(merged.groups[group].count == whole.groups[group].count for group in whole.groups)
    assert merged.servers == whole.servers


def test_news_tell_each_outcome_once() -> None:
    tally, seconds = ReplayTally(), Seconds()
    for at in (0.1, 0.2):
        tally.add(outcome(at))
        news = tally.news()
        assert (news.finished, news.errors) == (1, 0)
        seconds.add(news.cells)
    assert (seconds[0].cell.intended, seconds[0].cell.statuses) == (2, {"200": 2})
    assert tally.news().finished == 0


def test_a_second_long_closed_still_takes_in_an_answer() -> None:
    tally, seconds = ReplayTally(), Seconds()
    for number in range(3 * Seconds.HELD):
        tally.add(outcome(number))
    seconds.add(tally.news().cells)
    tally.add(outcome(0.5, latency=100.0))
    seconds.add(tally.news().cells)
    assert seconds[0].cell.intended == seconds[0].latency.count == 2
    assert seconds[0].latency.max() == 100.0
    assert seconds[1].latency.count == 1


def test_recent_latencies_are_those_of_the_last_seconds() -> None:
    _, seconds = add_up(outcome(0, latency=9.0), *(outcome(n, latency=0.001) for n in range(1, 9)))
    assert seconds.recent(5).count == 5
    assert seconds.recent(5).max() == 0.001


def test_a_long_run_holds_the_histograms_of_its_last_minute_only() -> None:
    """A histogram of 32 KB for each of 600 seconds would be 19 MB; those of a minute are 2."""
    seconds = Seconds()
    tracemalloc.start()
    try:
        for number in range(10 * Seconds.HELD):
            seconds.add({number: Cell(latencies=array("Q", (1000, 2000, 3000)))})
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 5_000_000
    assert len(seconds) == 10 * Seconds.HELD
