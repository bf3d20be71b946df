"""`endcap traffic --strict`: the first row that can be no request is refused; what was not asked for is no such row."""

from __future__ import annotations

from pathlib import Path

import pytest

from load.cli import main
from load.traffic_log import TrafficLog
from tests.load.test_traffic_command import answers, refused, written

EVENTS = "user_id,item_id,event,timestamp\nu1,i1,view,2026-01-02T00:00:01Z\n"
RETAIL = "InvoiceNo,StockCode,Quantity,InvoiceDate,UnitPrice,CustomerID\n1,22222,1,2010-12-01 08:26:00,2.5,17850\n"
LINE = '10.0.0.1 - - [10/Oct/2000:13:55:{:02} -0700] "GET {} HTTP/1.0" 200 23 "-" "curl"\n'
ACCESS = LINE.format(36, "/")


@pytest.mark.parametrize(
    ("kind", "text", "bad", "told"),
    [
        ("events", EVENTS, "u1,i1,view,yesterday\n", "input.csv: readable row 2: no time that can be read"),
        ("events", EVENTS, ",i1,view,2026-01-02T00:00:01Z\n", "input.csv: readable row 2: no user"),
        ("events", EVENTS, "u1,i1\n", "input.csv: row 3: not a line of this CSV: u1,i1"),
        ("online-retail", RETAIL, "2,22222,1,soon,2.5,17850\n", "input.csv: readable row 2: no time that can be read"),
        ("access", ACCESS, "nonsense\n", "input.csv: row 2: not a line of this format"),
        ("access", LINE.format(36, "/") * 2, LINE.format(36, "/").replace("13:55", "12:55"), "a minute before a line"),
    ],
)
def test_a_bad_row_ends_it_with_one_line_and_no_log_and_is_counted_without_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, text: str, bad: str, told: str
) -> None:
    file, out = written(tmp_path / "input.csv", text + bad), tmp_path / "out.ndjson"
    given = ["--from", "events", file, "--format", kind] if kind == "online-retail" else ["--from", kind, file]
    assert told in refused(capsys, out, *given, "--strict")
    assert main(["traffic", str(out), *map(str, given)]) == 0
    said = capsys.readouterr()
    assert told in said.err and "1 dropped" in said.out
    file.write_text(text)
    assert main(["traffic", str(out), *map(str, given), "--strict"]) == 0


def test_an_answer_that_no_request_can_be_made_of_is_a_bad_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("2026-11-25T08:00:00", "rank", request, 1.0) for request in ("{}", None)]
    shop = answers(tmp_path / "shop", rows)
    assert "answer r1: no time, no request" in refused(
        capsys, tmp_path / "out.ndjson", "--from", "answers", shop, "--strict"
    )


def test_what_was_not_asked_for_is_no_bad_row(tmp_path: Path) -> None:
    """Another day, another kind, a path without a mapping."""
    more = "u1,i1,cart,2026-01-02T00:00:01Z\nu1,i1,view,2026-01-03T00:00:01Z\n"
    for kind, text, options in (
        ("events", EVENTS + more, ["--day", "2026-01-02"]),
        ("access", ACCESS + LINE.format(37, "/robots.txt"), []),
    ):
        file, out = written(tmp_path / "input.csv", text), tmp_path / "out.ndjson"
        assert main(["traffic", str(out), "--from", kind, str(file), "--strict", *options]) == 0
        assert len(list(TrafficLog(out))) == 1
