"""`endcap traffic`: what each source makes of a small file, and what it says of the rest."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from load.cli import main
from load.sources.requests import in_order
from load.traffic_log import Entry, TrafficLog

Run = Any


@pytest.fixture
def traffic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `traffic OUT --from …`: the entries of the log, the last line said, and what was complained of."""

    def run(*arguments: object, name: str = "out.ndjson") -> tuple[list[Entry], str, str]:
        out = tmp_path / name
        status = main(["traffic", str(out), "--from", *map(str, arguments)])
        said = capsys.readouterr()
        assert status == 0, said.err
        return list(TrafficLog(out, strict=True)), said.out.splitlines()[-1], said.err

    return run


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a refusal, which left no log."""
    out = next(one for one in arguments if isinstance(one, Path))
    before = sorted(out.parent.iterdir())
    assert main(["traffic", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("load: ")
    assert "Traceback" not in said
    assert sorted(out.parent.iterdir()) == before
    return said.splitlines()[-1]


def body(entry: Entry) -> Any:
    assert entry.headers == {"Content-Type": "application/json"}
    return orjson.loads(entry.body or "")


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


# answers


def answers(folder: Path, rows: list[tuple[str, str, str | None, float]]) -> Path:
    """A deployment whose serving log has (time, endpoint, request, took_ms)."""
    for number, (at, endpoint, request, took) in enumerate(rows):
        hour = folder / "log" / "answers" / f"date={at[:10]}" / f"hour={at[11:13]}"
        hour.mkdir(parents=True, exist_ok=True)
        table = pa.table(
            {
                "recommendation_id": [f"r{number}"],
                "time": pa.array([us(at)], pa.timestamp("us", "UTC")),
                "endpoint": [endpoint],
                "request": pa.array([request], pa.string()),
                "took_ms": [took],
            }
        )
        pq.write_table(table, hour / f"{number}.parquet")
        (hour / f".{number}.parquet.partial").write_text("half made")
    return folder


def test_each_answer_becomes_the_request_that_led_to_it_when_it_came(traffic: Run, tmp_path: Path) -> None:
    """`time` is when it was answered; requests are in the order in which they came, over all files."""
    shop = answers(
        tmp_path / "shop",
        [
            ("2026-11-25T08:00:00.000100", "recommend", '{"user_id":"a"}', 20.0),
            ("2026-11-25T07:59:59.990000", "rank", '{"user_id":"b"}', 1.5),
            ("2026-11-25T09:00:00.000000", "explain", '{"user_id":"c"}', 1.0),
            ("2026-11-25T09:00:00.000000", "rank", None, 1.0),
        ],
    )
    entries, said, complained = traffic("answers", shop)
    assert [(entry.at_us, entry.path, entry.body) for entry in entries] == [
        (us("2026-11-25T07:59:59.980100"), "/v1/recommendations", '{"user_id":"a"}'),
        (us("2026-11-25T07:59:59.988500"), "/v1/rank", '{"user_id":"b"}'),
    ]
    assert "2 requests" in said
    assert "4 read, 2 dropped: no time, no request or no such endpoint 2" in said
    assert "answer r2: " in complained
    assert traffic("answers", shop / "log" / "answers")[0] == entries


def test_since_is_within_until_is_not_and_what_is_outside_is_counted(traffic: Run, tmp_path: Path) -> None:
    shop = answers(tmp_path / "shop", [(f"2026-11-25T0{hour}:00:00", "rank", "{}", 0.0) for hour in (6, 7, 8)])
    entries, said, _ = traffic(
        "answers", shop, "--since", "2026-11-25T07:00:00Z", "--until", "2026-11-25T09:00:00+01:00"
    )
    assert [entry.at_us for entry in entries] == [us("2026-11-25T07:00:00")]
    assert "outside --since and --until 2" in said


# events

EVENTS = """user_id,item_id,event,timestamp,session_id,quantity,price
u1,i1,view,2026-01-02T00:00:01Z,s1,,
u2,i2,purchase,2026-01-02T00:00:00Z,,2,3.5
u1,i1,cart,2026-01-02T00:00:03Z,s1,,
,i1,view,2026-01-02T00:00:03Z,s1,,
u1, ,view,2026-01-02T00:00:03Z,s1,,
u1,i1,view,yesterday,s1,,
u1,i1
u3,"i,3",view,1767312004,s3,,
u3,i3,view,2026-01-03T00:00:00Z,s3,,
"""


def test_views_become_requests_and_purchases_events_and_each_row_left_out_has_its_reason(
    traffic: Run, tmp_path: Path
) -> None:
    file = written(tmp_path / "events.csv", EVENTS)
    entries, said, complained = traffic("events", file, "--placement", "similar", "--count", 7, "--item-in-view")
    asked = {"placement": "similar", "count": 7}
    assert [(entry.path, body(entry)) for entry in entries] == [
        (
            "/v1/events",
            {"events": [{"event_id": "1-2", "user_id": "u2", "item_id": "i2", "type": "purchase", "value": 7.0}]},
        ),
        ("/v1/recommendations", {"user_id": "u1", "item_id": "i1", **asked}),
        ("/v1/recommendations", {"user_id": "u3", "item_id": "i,3", **asked}),
        ("/v1/recommendations", {"user_id": "u3", "item_id": "i3", **asked}),
    ]
    assert [entry.at_us - entries[0].at_us for entry in entries] == [0, 1_000_000, 4_000_000, 86_400_000_000]
    assert entries[0].at_us == us("2026-01-02T00:00:00")
    for reason in ("kind cart 1", "no user 1", "no item 1", "no time that can be read 1", "not a line of this CSV 1"):
        assert reason in said
    assert "9 read, 5 dropped" in said
    assert "events.csv: row 8: not a line of this CSV: u1,i1" in complained
    for row, reason in ((4, "no user"), (5, "no item"), (6, "no time that can be read")):
        assert f"events.csv: readable row {row}: {reason}\n" in complained


def test_one_day_is_the_one_asked_for_or_the_busiest(traffic: Run, tmp_path: Path) -> None:
    file = written(tmp_path / "events.csv", EVENTS)
    entries, said, _ = traffic("events", file, "--day", "busiest")
    assert len(entries) == 3
    assert "another day 1" in said
    entries, _, _ = traffic("events", file, "--day", "2026-01-03")
    assert [entry.at_us for entry in entries] == [us("2026-01-03T00:00:00")]


def test_columns_may_have_other_names_and_kinds_other_meanings(traffic: Run, tmp_path: Path) -> None:
    at = pa.array([us("2026-01-02T00:00:01")], pa.timestamp("us"))
    pq.write_table(pa.table({"who": [7], "what": ["i1"], "did": ["buy"], "when it was": at}), tmp_path / "e.parquet")
    names = ("--user-column", "who", "--item-column", "what", "--kind-column", "did", "--time-column", "when it was")
    entries, _, _ = traffic(
        "events", tmp_path / "e.parquet", *names, "--request-kinds", "look,buy", "--event-kinds", "buy"
    )
    assert [(entry.at_us, entry.path) for entry in entries] == [
        (us("2026-01-02T00:00:01"), "/v1/recommendations"),
        (us("2026-01-02T00:00:01"), "/v1/events"),
    ]
    assert body(entries[0])["user_id"] == "7"


RETAIL = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
1002,10001,B,1,2011-06-01 10:00:00,1.5,17850.0,UK
1001,85123a,A,6,2011-06-01 09:00:00,2.55,17850.0,UK
1001,85123A,A,2,2011-06-01 09:00:00,2.55,17850.0,UK
1001,10002,"B, C",1,2011-06-01 09:00:00,1.0,17850.0,UK
C1003,10002,B,-1,2011-06-01 09:00:00,1.0,17850.0,UK
1004,10002,B,1,2011-06-01 09:00:00,1.0,,UK
1005,10002,B,0,2011-06-01 09:00:00,1.0,1,UK
1006,10002,B,1,2011-06-01 09:00:00,0,1,UK
1007,POST,B,1,2011-06-01 09:00:00,1.0,1,UK
1008,10002,B,1,soon,1.0,1,UK
"""


def test_an_invoice_is_a_visit_one_request_and_then_what_was_bought(traffic: Run, tmp_path: Path) -> None:
    file = tmp_path / "retail.csv.gz"
    file.write_bytes(gzip.compress(RETAIL.encode()))
    entries, said, _ = traffic("events", file, "--format", "online-retail", "--spread", 0)
    nine = us("2011-06-01T08:00:00")  # London has summer time
    hour, second = 3_600_000_000, 1_000_000
    assert [(entry.at_us - nine, entry.path) for entry in entries] == [
        (0, "/v1/recommendations"),
        (second, "/v1/events"),
        (hour, "/v1/recommendations"),
        (hour + second, "/v1/events"),
    ]
    assert body(entries[0]) == {"user_id": "17850", "placement": "home", "count": 20}
    bought = {"user_id": "17850", "type": "purchase", "session_id": "1001"}
    assert body(entries[1])["events"] == [
        {"event_id": "1-1001-85123A", "item_id": "85123A", "value": 20.4, **bought},
        {"event_id": "1-1001-10002", "item_id": "10002", "value": 1.0, **bought},
    ]
    for reason in ("cancelled invoice", "no customer", "quantity not above 0", "price not above 0", "not a product"):
        assert reason in said
    assert "10 read, 6 dropped" in said


def test_spread_moves_requests_within_the_minute_by_the_seed_and_keeps_each_before_its_purchases(
    traffic: Run, tmp_path: Path
) -> None:
    lines = [f"{1000 + n},10001,A,1,2011-01-01 09:0{n % 3}:00,1.0,{n},UK" for n in range(30)]
    file = written(tmp_path / "retail.csv", "\n".join([RETAIL.splitlines()[0], *lines]))
    first, _, _ = traffic("events", file, "--format", "online-retail")
    assert traffic("events", file, "--format", "online-retail")[0] == first
    assert traffic("events", file, "--format", "online-retail", "--seed", 2)[0] != first
    nine = us("2011-01-01T09:00:00")
    assert len({entry.at_us for entry in first}) > 50
    at: dict[str, int] = {}
    for entry in first:
        said = body(entry)
        if entry.path == "/v1/recommendations":
            at[said["user_id"]] = entry.at_us
            minute = nine + int(said["user_id"]) % 3 * 60_000_000
            assert minute <= entry.at_us < minute + 60_000_000
        else:
            assert entry.at_us == at[said["events"][0]["user_id"]] + 1_000_000


def test_no_body_has_more_events_than_the_service_takes(traffic: Run, tmp_path: Path) -> None:
    lines = [f"1,{10_000 + n},A,1,2011-01-01 09:00:00,1.0,7,UK" for n in range(1_001)]
    file = written(tmp_path / "retail.csv", "\n".join([RETAIL.splitlines()[0], *lines]))
    entries, _, _ = traffic("events", file, "--format", "online-retail")
    assert [len(body(entry)["events"]) for entry in entries[1:]] == [1_000, 1]


# access

ACCESS = r"""10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /product/i%2F7?x=1 HTTP/1.1" 200 23 "http://x/" "M \"4\""
10.0.0.2 - ann [10/Oct/2000:13:55:35 -0700] "GET / HTTP/1.0" 200 2326 "-" "curl"
10.0.0.2 - ann [10/Oct/2000:13:55:37 -0700] "GET /style.css HTTP/1.0" 200 2326 "-" "curl"
10.0.0.2 - ann [10/Oct/2000:13:55:37 -0700] "GET /item/gone HTTP/1.0" 404 2326 "-" "curl"
10.0.0.2 - ann [10/Oct/2000:13:55:38 -0700] "GET /item/a HTTP/1.0" 200 23 "-" "curl"
no line at all
10.0.0.2 - ann [10/Foo/2000:13:55:38 -0700] "GET /item/a HTTP/1.0" 200 23 "-" "curl"
10.0.0.2 - ann [10/Oct/2000:13:54:37 -0700] "GET / HTTP/1.0" 200 23 "-" "curl"
"""


def test_lines_of_the_combined_format_become_requests_in_order_and_the_rest_is_counted_and_shown(
    traffic: Run, tmp_path: Path
) -> None:
    file = written(tmp_path / "access.log", ACCESS)
    entries, said, complained = traffic("access", file, "--spread", 0, "--count", 5)
    start = us("2000-10-10T20:55:35")
    assert [(entry.at_us - start, body(entry).get("item_id")) for entry in entries] == [
        (0, None),
        (1_000_000, "i/7"),
        (3_000_000, "a"),
    ]
    people = [body(entry)["user_id"] for entry in entries]
    assert people[0] == people[2] != people[1]
    assert not any("10.0.0" in (entry.body or "") for entry in entries)
    assert body(entries[0])["count"] == 5
    assert "8 read, 5 dropped" in said
    for reason in ("not a line of this format 2", "no mapping for GET of this path or status 2", "before a line above"):
        assert reason in said
    assert "access.log: row 6: not a line of this format" in complained


def test_visitors_may_be_users_that_the_shop_knows(traffic: Run, tmp_path: Path) -> None:
    file = written(tmp_path / "access.log", ACCESS)
    entries, _, _ = traffic("access", file, "--users-count", 3, "--user-template", "u%02d")
    assert body(entries[0])["user_id"] == body(entries[2])["user_id"]
    file.write_text("".join(ACCESS.splitlines(keepends=True)[1].replace("10.0.0.2", f"10.0.1.{n}") for n in range(50)))
    entries, _, _ = traffic("access", file, "--users-count", 3, "--user-template", "u%02d")
    assert {body(entry)["user_id"] for entry in entries} == {"u00", "u01", "u02"}


MAPPING = r"""
line = '(?P<time>\S+) (?P<method>\S+) (?P<target>\S+) (?P<user>\S+)'
time = "%Y-%m-%dT%H:%M:%S"
[[request]]
path = '/buy/(?P<item>[^/]+)'
methods = ["POST"]
send = "PUT /things/{item}?by={user}"
headers = { Endcap-Priority = "bulk", X-User = "{user}" }
body = { who = "{user}", list = ["{item}", 3], deep = { item = "{item}", on = true } }
[[request]]
path = '/ping'
send = "GET /healthz"
"""


def test_a_mapping_of_ones_own_says_what_a_line_and_a_request_are(traffic: Run, tmp_path: Path) -> None:
    mapping = written(tmp_path / "mapping.toml", MAPPING)
    lines = ["2026-01-01T00:00:00 POST /buy/a%20b u1", "2026-01-01T00:00:01 POST /buy/c -"]
    file = written(tmp_path / "log", "\n".join([*lines, "2026-01-01T00:00:02 GET /ping -"]))
    entries, _, _ = traffic("access", file, "--mapping", mapping, "--spread", 0)
    assert [(entry.method, entry.path) for entry in entries] == [
        ("PUT", "/things/a%20b?by=u1"),
        ("PUT", "/things/c?by=-"),
        ("GET", "/healthz"),
    ]
    assert entries[0].headers == {"Content-Type": "application/json", "Endcap-Priority": "bulk", "X-User": "u1"}
    assert orjson.loads(entries[0].body or "") == {
        "who": "u1", "list": ["a b", 3], "deep": {"item": "a b", "on": True},
    }  # fmt: skip
    assert "who" not in orjson.loads(entries[1].body or "")
    assert (entries[2].body, entries[2].headers) == (None, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("(?P<time>", "(?P<when>"), "no group (?P<time>…)"),
        (("/buy/(?P<item>", "/buy/(?P<item"), "request 1: path: no regular expression"),
        (("{item}?by", "{thing}?by"), "request 1: {thing}: there are"),
        (('"{item}", 3', '"{thing}", 3'), "request 1: {thing}: there are"),
        (('"GET /healthz"', '"/healthz"'), "request 2: send '/healthz'"),
        (("methods =", "method ="), "unknown field `method`"),
        (("path = '/ping'", "path = '/ping'\nstatuses = ['200']"), "request 2: statuses"),
        (("[[request]]", "[[request]"), "mapping.toml: "),
    ],
)
def test_a_mapping_that_is_none_is_refused_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], message: str
) -> None:
    mapping = written(tmp_path / "mapping.toml", MAPPING.replace(*change))
    file = written(tmp_path / "log", "")
    said = refused(capsys, tmp_path / "out.ndjson", "--from", "access", file, "--mapping", mapping)
    assert "mapping.toml: " in said
    assert message in said


# rates


def test_a_rate_becomes_so_many_requests_in_each_second(traffic: Run, tmp_path: Path) -> None:
    file = tmp_path / "rate.txt.gz"
    file.write_bytes(gzip.compress(b"3\n0\n50\n2\n"))
    entries, said, _ = traffic("rates", file, "--users-count", 4)
    assert [entry.at_us // 1_000_000 for entry in entries] == [0] * 3 + [2] * 50 + [3] * 2
    assert {body(entry)["user_id"] for entry in entries} == {f"u0000{n}" for n in range(4)}
    assert "55 requests" in said
    cut, said, _ = traffic("rates", file, "--users-count", 4, "--start", 2, "--seconds", 1)
    assert [entry.at_us // 1_000_000 for entry in cut] == [0] * 50
    assert "55 read, 5 dropped: outside --start and --seconds 5" in said


def test_the_seed_and_nothing_else_decides(traffic: Run, tmp_path: Path) -> None:
    rate = written(tmp_path / "rate.txt", "20\n20\n")
    users = written(tmp_path / "users.txt", "ann\nbob\ncy\n")
    first, _, _ = traffic("rates", rate, "--users", users)
    assert traffic("rates", rate, "--users", users, name="out.parquet")[0] == first
    assert traffic("rates", rate, "--users", users, "--seed", 2)[0] != first


# all of them


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{out}", "--from", "rates", "{rate}"], "--from rates: the file has no users"),
        (["{out}", "--from", "rates", "{rate}", "--users-count", "1", "--mapping", "m"], "--mapping is no option of"),
        (["{out}", "--from", "answers", "{rate}", "--count", "3"], "--count is no option of --from answers"),
        (["{out}", "--from", "rates", "{bad}", "--users-count", "1"], "bad.txt: row 2: '-3' is not a number of"),
        (["{out}", "--from", "rates", "{none}", "--users-count", "1"], "none.txt: No such file"),
        (["{out}", "--from", "rates", "{rate}", "--users-count", "1", "--start", "9"], "--start 9: there are 2"),
        (["{out}", "--from", "events", "{none}"], "none.txt: No such file"),
        (["{out}", "--from", "events", "{rate}"], "rate.txt: there is no column user_id; there are "),
        (
            ["{out}", "--from", "events", "{rate}", "--format", "online-retail"],
            "rate.txt: there is no column InvoiceNo",
        ),
        (
            ["{out}", "--from", "events", "{events}", "--format", "online-retail", "--item-in-view"],
            "--item-in-view is no",
        ),
        (["{out}", "--from", "events", "{events}", "--day", "soon"], "--day soon: expected"),
        (["{out}", "--from", "events", "{events}", "--day", "1999-01-01"], "no request is left"),
        (["{out}", "--from", "answers", "{folder}"], "there is no serving log"),
        (["{out}", "--from", "answers", "{events}"], "events.csv"),
        (["{out}", "--from", "access", "{none}"], "none.txt: No such file"),
        (["{out}", "--from", "access", "{events}"], "no request is left"),
        (["{out}", "--from", "tapes", "{events}"], "invalid choice: 'tapes'"),
        (["{out}", "--from", "events"], "required: INPUT"),
        (["{csv}", "--from", "events", "{events}"], "ends in .ndjson, .ndjson.gz, .parquet"),
        (["{in}", "--from", "events", "{in}"], "is the input as well"),
    ],
)
def test_what_cannot_become_a_log_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    paths = {
        "{out}": tmp_path / "out.ndjson",
        "{csv}": tmp_path / "out.csv",
        "{none}": tmp_path / "none.txt",
        "{folder}": tmp_path,
        "{in}": written(tmp_path / "in.ndjson", "a"),
        "{rate}": written(tmp_path / "rate.txt", "1\n2\n"),
        "{bad}": written(tmp_path / "bad.txt", "1\n-3\n"),
        "{events}": written(tmp_path / "events.csv", EVENTS),
    }
    assert message in refused(capsys, *(paths.get(argument, argument) for argument in arguments))


def test_entries_within_the_horizon_come_out_sorted_and_ties_as_they_came() -> None:
    def entries(times: list[int]) -> list[tuple[int, Entry]]:
        return [(max(times[: n + 1]), Entry(at, "GET", f"/{n}")) for n, at in enumerate(times)]

    assert [entry.path for entry in in_order(entries([5, 3, 9, 9, 4, 20]), 5)] == ["/1", "/4", "/0", "/2", "/3", "/5"]


def test_sigterm_leaves_nothing(tmp_path: Path) -> None:
    rate = written(tmp_path / "rate.txt", "100000\n" * 50)
    command = [sys.executable, "-m", "load.cli", "traffic", str(tmp_path / "out.ndjson"), "--from", "rates", str(rate)]
    with subprocess.Popen([*command, "--users-count", "9"], env={**os.environ}, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 30
        while not (tmp_path / "out.ndjson.part").exists() and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert list(tmp_path.iterdir()) == [rate]
