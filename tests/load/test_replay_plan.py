from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from load.doors import door_of
from load.errors import LoadError
from load.outcome import Label
from load.replay_plan import Pace, label, plan, step_pace, survey
from load.traffic_log import Entry
from tests.load.logs import post, steady, write_log

DOOR = door_of("http://shop:8080")


def times(path: Path, pace: Pace, part: int = 0, parts: int = 1) -> list[float]:
    return [planned.at for planned in plan(path, DOOR, pace, part, parts)]


def test_times_count_from_the_first_row_and_speed_shortens_them(tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.ndjson", [post(5_000_000), post(5_000_000), post(7_000_000)])
    assert times(log, Pace(1.0)) == [0.0, 0.0, 2.0]
    assert times(log, Pace(4.0)) == [0.0, 0.0, 0.5]


def test_the_parts_of_a_plan_are_the_whole_plan_each_request_once(tmp_path: Path) -> None:
    """Also where a row of the log cannot be sent: every process passes over the same one."""
    rows = [post(n * 1000, body=n) if n != 4 else post(4000, method="HEAD") for n in range(11)]
    log = write_log(tmp_path / "a.ndjson", rows)
    whole = list(plan(log, DOOR, Pace(1.0)))
    parts = [list(plan(log, DOOR, Pace(1.0), part, 3)) for part in range(3)]
    assert sorted(itertools.chain(*parts)) == whole
    assert len(whole) == 10
    assert [len(part) for part in parts] == [4, 3, 3]


def test_a_loop_goes_on_a_mean_gap_after_the_last_request_until_its_seconds_are_over(tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.ndjson", [post(0), post(1_000_000), post(2_000_000)])
    seen = survey(log, DOOR)
    assert times(log, Pace(1.0, True, seen.period_us, 6.5)) == [0, 1, 2, 3, 4, 5, 6]
    parts = [times(log, Pace(1.0, True, seen.period_us, 6.5), part, 2) for part in (0, 1)]
    assert parts == [[0, 2, 4, 6], [1, 3, 5]]
    assert times(log, Pace(1.0, False, seen.period_us, 1.5)) == [0, 1]


def test_a_rate_is_the_mean_of_the_whole_log(tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.ndjson", [post(at) for at in (0, 100, 200, 10_000_000)])
    speed = survey(log, DOOR).speed_for(300.0)
    at = times(log, Pace(speed))
    assert len(at) / (at[-1] * len(at) / (len(at) - 1)) == pytest.approx(300)


def test_the_busiest_second_is_found_at_every_speed(tmp_path: Path) -> None:
    """50 requests in a tenth of a second of an hour; a window is one to two seconds of the run, and begins anywhere."""
    burst = [post(1_800_000_000 + n * 2000) for n in range(50)]
    log = write_log(
        tmp_path / "a.ndjson", [post(n * 360_000_000) for n in range(5)] + burst + [post(3_600_000_000)] * 5
    )
    seen = survey(log, DOOR)
    assert seen.peak_rate(1.0) == 50
    assert seen.peak_rate(0.1) == pytest.approx(50, rel=0.5)
    assert seen.peak_rate(36_000.0) == pytest.approx(60, rel=0.5)
    assert survey(steady(tmp_path / "b.ndjson", 200, 2000), DOOR).peak_rate(1.0) == pytest.approx(200, rel=0.02)


def test_a_step_has_its_rate_also_where_the_log_begins_quietly(tmp_path: Path) -> None:
    """A night of 10/s before a day of 100/s: the first ten seconds at 50/s hold 500 requests, or a few more."""
    night = [post(n * 100_000) for n in range(1000)]
    day = [post(100_000_000 + n * 10_000) for n in range(10_000)]
    log = write_log(tmp_path / "a.ndjson", night + day)
    pace = step_pace(log, survey(log, DOOR), 50.0, 10.0)
    assert len(times(log, pace)) == pytest.approx(500, abs=2)
    again = step_pace(log, survey(log, DOOR), 5000.0, 10.0)  # more than the log holds
    assert len(times(log, again)) == pytest.approx(50_000, rel=0.2)


def test_a_survey_counts_what_cannot_be_sent_and_tells_where(tmp_path: Path) -> None:
    rows: list[Any] = [post(0), "{", post(1, method="HEAD"), post(2, path="no"), post(3, headers={"A": "b\r\nc: d"})]
    log = write_log(tmp_path / "a.ndjson", rows)
    seen = survey(log, DOOR)
    assert (seen.count, seen.bad) == (1, 4)
    assert len(seen.complaints) == 4
    assert all(str(log) in complaint for complaint in seen.complaints)
    assert any("method HEAD" in complaint for complaint in seen.complaints)
    with pytest.raises(LoadError, match=r"a\.ndjson: row 2"):
        survey(log, DOOR, strict=True)
    with pytest.raises(LoadError, match="at 1 us: method HEAD"):
        survey(write_log(tmp_path / "b.ndjson", [post(0), post(1, method="HEAD")]), DOOR, strict=True)


def test_what_has_nothing_to_send_or_no_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no request that can be sent"):
        survey(write_log(tmp_path / "a.ndjson", ["{"]), DOOR)
    with pytest.raises(LoadError, match="No such file"):
        survey(tmp_path / "none.ndjson", DOOR)
    with pytest.raises(LoadError, match="all at one time"):
        survey(write_log(tmp_path / "b.ndjson", [post(7), post(7)]), DOOR).speed_for(10.0)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/recommendations", '{"placement":"similar"}', ("POST /v1/recommendations", "similar")),
        ("/v1/recommendations?x=1", "{}", ("POST /v1/recommendations", "home")),
        ("/v1/rank", "not JSON", ("POST /v1/rank", "home")),
        ("/v1/rank", None, ("POST /v1/rank", "home")),
        ("/v1/events", '{"events":[]}', ("POST /v1/events", None)),
        ("/v1/events", "[]", ("POST /v1/events", None)),
    ],
)
def test_a_request_is_labelled_with_its_endpoint_and_placement(
    path: str, body: str | None, expected: tuple[str, str | None]
) -> None:
    assert label(Entry(0, "POST", path, {}, body)) == Label(*expected)


def test_a_request_is_sent_as_the_log_has_it_behind_the_prefix_of_the_address(tmp_path: Path) -> None:
    headers = {"Endcap-Timeout-Ms": "20", "Upgrade": "h2c", "content-type": "text/x"}
    log = write_log(tmp_path / "a.ndjson", [post(0, "/a?b=c", "\u00e9", headers=headers, method="PUT")])
    (planned,) = plan(log, door_of("http://shop:8080/v2/"), Pace(1.0))
    head, _, body = planned.payload.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "PUT /v2/a?b=c HTTP/1.1"
    assert "Endcap-Timeout-Ms: 20" in lines
    assert not any(line.startswith("Upgrade") for line in lines)
    assert [line for line in lines if line.lower().startswith("host:")] == ["Host: shop:8080"]
    assert [line for line in lines if line.lower().startswith("content-type:")] == ["content-type: text/x"]
    assert [line for line in lines if line.lower().startswith("content-length:")] == [f"Content-Length: {len(body)}"]
    assert body == '"\u00e9"'.encode()
