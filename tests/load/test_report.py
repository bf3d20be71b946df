"""`endcap report`: results of replays, made by hand, as a page, beside each other, and in words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import orjson
import pytest

from load.cli import main
from load.replay_file import check
from load.report_html import write
from load.report_pair import deltas, warnings
from load.report_plots import thinned
from load.report_words import verdict
from load.svg import clock, nines, nines_axis, seconds_axis, value_axis
from tests.load.replays import replay

EVIL = "<script>alert(1)</script>"


def save(path: Path, result: dict[str, Any]) -> str:
    path.write_bytes(orjson.dumps(result))
    return str(path)


def drawings(html: str) -> list[ET.Element]:
    return [ET.fromstring(one) for one in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def test_a_page_holds_the_verdict_every_drawing_and_every_table_and_needs_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    write(replay(), page)
    html = page.read_text()
    for text in (
        "The SLO was met: p99=50ms, errors=0.1%. 5999 of 6000 requests were answered, p99 12 ms, 0.07 % errors.",
        "The client kept the schedule. 3 of 6000 requests left more than 1 ms late, the latest 2 ms.",
        "Latency by percentile", "Latency over time", "intended and achieved", "Errors and degraded answers",
        "POST /v1/recommendations cart", "unanswered", "candidates", "2 x Made Up CPU", "version of server",
        "day.ndjson: row 7: not JSON",
    ):  # fmt: skip
        assert text in html
    assert "<script" not in html
    assert re.findall(r'(?:src|href|url)\s*[=(]', html) == []  # fmt: skip
    charts = [one for one in drawings(html) if one.get("role") == "img"]
    assert len(charts) == 5
    for one in charts:
        assert one.get("aria-label")


def test_a_chart_tells_the_figures_of_each_second_where_the_pointer_rests(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    write(replay(), page)
    html = page.read_text()
    assert "<title>30 s: p50 2.721, p99 80, max 140</title>" in html
    assert "<title>30 s: 200 80, 202 17, 503 2, unanswered 1</title>" in html
    assert "<title>31 s: 200 80, 202 20</title>" in html


def test_statuses_by_second_are_of_each_run_and_the_rare_ones_share_a_line(tmp_path: Path) -> None:
    """No more lines than can be told apart."""
    often = {"200": 90, "202": 50, "503": 9}
    series = [one | {"statuses": {**often, "404": 2, "dropped": 1}} for one in replay()["seconds_series"]]
    files = [save(tmp_path / "a.json", replay()), save(tmp_path / "b.json", replay(seconds_series=series))]
    page = tmp_path / "page.html"
    assert main(["report", *files, "--html", str(page)]) == 0
    html = page.read_text()
    assert "<title>31 s: 200 80, 202 20</title>" in html
    assert "<title>31 s: 200 90, 202 50, 503 9, others 3</title>" in html
    assert "How those of A ended" in html and "How those of B ended" in html


def test_a_missed_slo_stands_first_with_what_was_measured() -> None:
    assert verdict(check(replay(slow=5.0))).startswith("The SLO was missed: p99=50ms, measured 60 ms. 5999 of")


def test_a_client_that_was_late_is_told_at_the_top_not_only_at_the_end(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    for late, told in ((0.4, 0), (1.5, 1)):
        write(replay(client=replay()["client"] | {"lateness_p99_ms": late, "verdict": "the client was late"}), page)
        assert page.read_text().count('class="note">The client was late') == told


def test_without_an_slo_the_sentence_says_what_happened() -> None:
    assert verdict(check(replay(slo=[]))).startswith("No SLO was asked for: 5999 of 6000 requests were answered")


def test_whatever_a_result_holds_is_shown_as_text_never_as_markup(tmp_path: Path) -> None:
    evil = replay(
        log=EVIL, url=EVIL, started=EVIL, complaints=[EVIL], statuses={EVIL: 1}, degraded={EVIL: 1},
        machine={EVIL: EVIL, "line": EVIL}, versions={EVIL: EVIL}, client=replay()["client"] | {"verdict": EVIL},
        groups=[replay()["groups"][0] | {"endpoint": EVIL, "placement": EVIL, "status": EVIL}],
        stages_ms={EVIL: {"count": 1, "p50": 1, "p99": 1, "mean": 1}},
        slo=[{"name": EVIL, "bound": EVIL, "value": 1, "met": False}],
    )  # fmt: skip
    one, page = save(tmp_path / "a.json", evil), tmp_path / "page.html"
    for arguments in ([one], [one, one]):
        assert main(["report", *arguments, "--html", str(page)]) == 0
        html = page.read_text()
        assert "<script" not in html
        assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 15


def test_a_run_in_which_nothing_was_answered_has_a_page_too(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("p50", "p90", "p99", "p99.9", "max", "mean"))
    client = dict.fromkeys(("lateness_p50_ms", "lateness_p99_ms", "lateness_max_ms")) | {"late": 0, "verdict": "none"}
    silent = replay(
        seconds_series=[], percentiles=[], groups=[], stages_ms={}, statuses={}, degraded={}, planned=0, sent=0,
        answered=0, degraded_answers=0, errors=0, latency_ms=nothing, client=client,
        slo=[{"name": "p99", "bound": "p99=50ms", "value": None, "met": False}],
    ) | {"seconds": 0.0, "duration": 0.0}  # fmt: skip
    page = tmp_path / "page.html"
    write(silent, page)
    assert "p99=50ms, nothing measured" in page.read_text()
    both = [save(tmp_path / "a.json", silent), save(tmp_path / "b.json", replay())]
    assert main(["report", *both, "--html", str(page)]) == 0


def test_two_runs_share_each_drawing_and_stand_beside_each_other_in_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [save(tmp_path / "a.json", replay()), save(tmp_path / "b.json", replay(slow=1.12))]
    page, out = tmp_path / "page.html", tmp_path / "out.json"
    assert main(["report", *files, "--html", str(page), "--json", str(out)]) == 0
    html = page.read_text()
    assert ">A p99</span>" in html
    assert ">B p99</span>" in html
    assert "<td>12 % slower</td>" in html
    assert "12 % slower" in capsys.readouterr().out
    figures = orjson.loads(out.read_bytes())
    assert figures["warnings"] == []
    p99 = next(one for one in figures["deltas"] if one["name"] == "p99")
    assert p99["ratio"] == pytest.approx(1.12)


@pytest.mark.parametrize(
    ("slow", "words"),
    [(1.0, "the same"), (1.004, "the same"), (1.12, "12 % slower"), (1.03, "3.0 % slower"), (0.7, "30 % faster"),
     (2.5, "2.5 times as slow"), (30.0, "30 times as slow")],
)  # fmt: skip
def test_a_change_is_said_in_words(slow: float, words: str) -> None:
    assert {one.name: one.words for one in deltas(check(replay()), check(replay(slow=slow)))}["p99"] == words


def test_the_rate_intended_is_over_the_planned_seconds_not_over_those_until_the_last_answer() -> None:
    late = {"intended": 0, "sent": 0, "answered": 4, "second": 60}
    series = [*replay()["seconds_series"], replay()["seconds_series"][0] | late]
    assert check(replay(seconds_series=series)).rate_intended() == 100


def test_shares_differ_by_points() -> None:
    found = {one.name: one.words for one in deltas(check(replay()), check(replay(errors=64)))}
    assert found["errors"] == "1.00 points more"
    assert found["degraded"] == "the same"


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"log": "night.ndjson"}, "Not the same traffic"),
        ({"planned": 9000}, "Not the same rate: A intended 100.0 requests/s, B 150.0."),
        ({"speed": 2.0}, "Not played alike"),
        ({"rate": 100.0}, "Not played alike"),
        ({"machine": {"line": "another"}}, "Not the same machine"),
        ({"processes": 2}, "Not as many client processes"),
        ({"client": replay()["client"] | {"lateness_p99_ms": 3.0}}, "The client was late in B, 3.00 ms at p99"),
    ],
)
def test_runs_that_are_not_comparable_say_why(changes: dict[str, Any], warning: str) -> None:
    a = check(replay())
    assert warnings(a, a) == []
    (said,) = warnings(a, check(replay(**changes)))
    assert said.startswith(warning)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "a.json: no JSON"),
        (b"[]", "a.json: not the result of a replay"),
        (b'{"kind": "endcap diff"}', "a.json: not the result of a replay"),
        (b'{"kind": "endcap replay", "version": 2}', "a.json: version 2 of the result"),
        (orjson.dumps(replay(planned="many")), "a.json: Expected `int`, got `str` - at `$.planned`"),
        (orjson.dumps(replay(client={})), "a.json: Object missing required field `lateness_p50_ms` - at `$.client`"),
    ],
)
def test_what_is_no_result_is_refused_with_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    page = tmp_path / "page.html"
    assert main(["report", str(file), "--html", str(page)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("load: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not page.exists()


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "a.json", replay())
    for arguments, message in (
        (["no.json"], "no.json: No such file"),
        ([file, "--html", str(tmp_path / "no" / "a.html")], "a.html: No such file"),
        ([file, "--json", "out.json"], "--json: of one run there is the result itself"),
    ):
        assert main(["report", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_long_series_keeps_its_peaks() -> None:
    """Of 7,200 seconds at most 300 points are drawn; gaps stay gaps."""
    series = [(second, 100.0 if second == 5000 else None if second < 24 else 1.0) for second in range(7200)]
    points = thinned(series, max)
    assert len(points) == 300
    assert points[0] == (0, None)
    assert max(value for _, value in points if value is not None) == 100


def test_axes_place_their_ends_and_name_round_values() -> None:
    assert [nines_axis(99.99).place(percent) for percent in (0, 90, 99.99)] == pytest.approx([0, 0.25, 1])
    assert nines(100) == pytest.approx(6)
    assert [text for _, text in seconds_axis(3600).ticks] == ["0 s", *(f"{at} min" for at in (10, 20, 30, 40, 50, 60))]
    assert [text for _, text in value_axis([0.0, 7.0]).ticks] == ["0", "2", "4", "6"]
    wide = value_axis([0.5, 300.0], wide=True)
    assert [text for _, text in wide.ticks] == ["0.1", "1", "10", "100", "1000"]
    assert wide.place(0.0) == 0  # nothing lies below a logarithmic axis
    assert [clock(at) for at in (90, 150, 9000)] == ["90 s", "2 min 30 s", "2.5 h"]
