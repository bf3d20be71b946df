"""`endcap query`: what it answers, in which form, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from features.errors import InputError
from features.user import ViewState
from service import config
from service.answer_log import LOG, AnswerLog
from service.commands import query as module
from service.commands.query import query
from service.errors import ConfigError
from service.wire import RecommendRequest
from tests.service.test_answer_log import ROOT, VALUES, answered

TEMPLATE = (Path(config.__file__).parent / config.FILE).read_text()
QUESTIONS = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "serving-log.md").read_text(), re.DOTALL)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A deployment whose log is empty, in a directory whose name is no friend of globs and quotes."""
    here = tmp_path / "a 'shop' [1]*"
    here.mkdir()
    (here / config.FILE).write_text(TEMPLATE)
    return here


@pytest.fixture
def filled(directory: Path) -> Path:
    """Ten answers of the last ten seconds: ages 0..9 s, the last two degraded, all but one of u00012."""
    log = AnswerLog(directory / LOG)
    for number in range(10):
        log.put(
            answered(
                number,
                time.time() - number,
                request=RecommendRequest(user_id="u00012" if number else "u\x1b]0;\u202e日本", count=5),
                views={"user_recent": ViewState("present", float(number)), "user_profile": ViewState("missing", None)},
                degraded=["features", "user"] if number == 9 else ["features"] if number == 8 else [],
            )
        )
    log.flush()
    assert log.written == 10
    return directory


class Asked:
    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self.capsys = directory, capsys

    def text(self, sql: str, form: str) -> str:
        bound = module.console.file  # to the stdout of when it was imported, not to what this test captures
        module.console.file = sys.stdout
        try:
            query(self.directory, sql, form)
        finally:
            module.console.file = bound
        return self.capsys.readouterr().out

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text(sql, "json").splitlines()]


def test_the_questions_of_the_docs_are_answered(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ages, degraded, shown = (Asked(filled, capsys).rows(sql) for sql in QUESTIONS)
    assert ages == [
        {"placement": "home", "view": "user_profile", "answers": 10, "unknown": 10, "p50_s": None, "p95_s": None,
         "p99_s": None},
        {"placement": "home", "view": "user_recent", "answers": 10, "unknown": 0, "p50_s": 4.5, "p95_s": 8.5,
         "p99_s": 8.9},
    ]  # fmt: skip
    without = {
        reason: sum(row["without"] for row in degraded if row["reason"] == reason) for reason in reasons(degraded)
    }
    assert without == {"features": 2, "user": 1}
    assert all(0 <= row["share"] <= 1 and row["version"] == "3" for row in degraded)
    assert [row["user_recent_age_s"] for row in shown] == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert shown[0]["shown_first"] == ["i1", "i2"] and shown[0]["degraded"] == ["features", "user"]


def reasons(rows: list[dict[str, Any]]) -> set[str]:
    return {row["reason"] for row in rows if row["reason"] is not None}


@pytest.mark.parametrize("made", [False, True])
def test_an_empty_log_answers_with_no_rows(directory: Path, capsys: pytest.CaptureFixture[str], made: bool) -> None:
    if made:
        (directory / LOG / "date=2026-01-01" / "hour=00").mkdir(parents=True)
    assert len(QUESTIONS) == 3
    assert [Asked(directory, capsys).rows(sql) for sql in QUESTIONS] == [[], [], []]


def test_an_empty_log_has_the_columns_of_a_full_one(
    directory: Path, filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / config.FILE).write_text(TEMPLATE)
    described = "SELECT column_name, column_type FROM (DESCRIBE answers)"
    assert Asked(other, capsys).rows(described) == Asked(filled, capsys).rows(described)


def test_every_column_is_documented(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = [row["column_name"] for row in Asked(filled, capsys).rows("DESCRIBE answers")]
    table = (ROOT / "docs" / "serving-log.md").read_text().split("| column |")[1]
    assert [name for name in columns if not re.search(rf"^\|[^|]*`{name}`", table, re.MULTILINE)] == []


def test_values_in_the_log_are_exact(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = Asked(filled, capsys).rows("SELECT features, features -> 'user_activity:third' AS third FROM answers")
    assert json.loads(rows[0]["features"]) == VALUES
    assert float(rows[0]["third"]) == 1 / 3


def test_csv_and_json_hold_the_same_values(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = (
        "SELECT user_id, date, items, 1/3::DOUBLE AS third, NULL AS nothing, 2::HUGEINT ** 100 AS big, "
        "170141183460469231731687303715884105727 AS huge, 1.5::DECIMAL(3, 1) AS price, TRUE AS yes, "
        "INTERVAL 90 SECOND AS long FROM answers ORDER BY time DESC LIMIT 2"
    )
    as_json = Asked(filled, capsys).rows(sql)
    as_csv = list(csv.DictReader(io.StringIO(Asked(filled, capsys).text(sql, "csv"))))
    assert as_json[0]["user_id"] == as_csv[0]["user_id"] == "u\x1b]0;\u202e日本"
    assert as_json[0]["huge"] == as_csv[0]["huge"] == str(2**127 - 1)
    assert as_json[0]["items"] == json.loads(as_csv[0]["items"]) == [
        {"item_id": "i1", "score": 0.5, "source": "personal"},
        {"item_id": "i2", "score": -1.25, "source": "popular"},
    ]  # fmt: skip
    assert as_json[0]["third"] == float(as_csv[0]["third"]) == 1 / 3
    assert (as_json[0]["nothing"], as_csv[0]["nothing"]) == (None, "")
    assert (as_json[0]["price"], as_json[0]["yes"], as_json[0]["long"]) == (1.5, True, "0:01:30")


def test_a_table_shortens_long_cells_and_hands_the_terminal_no_orders(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Asked(filled, capsys).text("SELECT user_id, request, '[red]x' AS plain FROM answers", "table")
    assert "u00012" in shown and "[red]x" in shown and "…" in shown and "日本" in shown
    assert "\x1b" not in shown and "\u202e" not in shown
    assert len(shown.splitlines()) == 10 + 4


def test_a_plan_is_shown_whole(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "READ_PARQUET" in Asked(filled, capsys).text("EXPLAIN ANALYZE SELECT user_id FROM answers", "table")


@pytest.mark.parametrize(
    "sql",
    [
        "FROM answers", "WITH x AS (FROM answers) SELECT count(*) FROM x", "DESCRIBE answers", "SUMMARIZE answers",
        "EXPLAIN FROM answers", "EXPLAIN ANALYZE FROM answers", "EXPLAIN (FORMAT json) FROM answers", "VALUES (1)",
        "SELECT 1; -- and no more", "SHOW TABLES",
    ],
)  # fmt: skip
def test_one_statement_that_reads_is_run(filled: Path, capsys: pytest.CaptureFixture[str], sql: str) -> None:
    assert Asked(filled, capsys).text(sql, "csv")


READING = "only statements that read"
LOCKED = "Permission Error"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("INSERT INTO answers VALUES (1)", READING),
        ("COPY answers TO '{out}'", READING),
        ("ATTACH '{out}'", READING),
        ("CREATE TABLE t AS FROM answers", READING),
        ("DROP VIEW answers", READING),
        ("SET enable_external_access = true", READING),
        ("EXPORT DATABASE '{out}'", READING),
        ("INSTALL httpfs", READING),
        ("LOAD httpfs", READING),
        ("EXPLAIN ANALYZE COPY answers TO '{log}/x.parquet'", READING),
        ("EXPLAIN (ANALYZE) COPY answers TO '{log}/x.parquet'", READING),
        ("EXPLAIN /* */ ANALYZE COPY answers TO '{log}/x.parquet'", "syntax error"),
        ("EXPLAIN ANALYZE EXPLAIN ANALYZE COPY answers TO '{log}/x.parquet'", "EXPLAIN"),
        ("", "one statement is wanted, not 0"),
        ("-- nothing", "one statement is wanted, not 0"),
        ("SELECT 1; SELECT 2", "one statement is wanted, not 2"),
        ("SELECT * FROM '{secret}'", LOCKED),
        ("SELECT * FROM read_text('{secret}')", LOCKED),
        ("SELECT * FROM glob('/etc/*')", LOCKED),
        ("SELEC 1", "syntax error"),
        ("SELECT nobody FROM answers", "nobody"),
        ("SELECT * FROM frame", "does not exist"),
    ],
)
def test_what_does_not_read_the_log_is_refused_in_one_line(filled: Path, tmp_path: Path, sql: str, said: str) -> None:
    """Other files, variables of this program (`frame`) and EXPLAIN ANALYZE of a write included."""
    frame = secret = tmp_path / "secret.csv"
    frame.write_text("a,b\n1,2\n")
    before = sorted(tmp_path.rglob("*"))
    log = str(filled / LOG).replace("'", "''")
    with pytest.raises(InputError) as caught:
        query(filled, sql.format(out=tmp_path / "out", log=log, secret=secret), "table")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_two_columns_of_one_name_are_no_json_object(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="same name"):
        query(filled, "SELECT 1 AS a, 2 AS a", "json")
    assert Asked(filled, capsys).text("SELECT 1 AS a, 2 AS a", "csv") == "a,a\n1,2\n"


def test_times_are_utc_wherever_it_runs(
    filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        found = Asked(filled, capsys).rows("SELECT hour, date, time FROM answers")
        assert all(f"{row['date']}T{row['hour']:02d}:" == row["time"][:14] for row in found)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_file_compacted_away_under_a_query_makes_it_run_again(
    filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts, real = [], module.opened

    def opened(log: Path, threads: int | None = None) -> Any:
        """The first time, the files go after they were listed."""
        for path in log.glob("date=*/hour=*/*.away"):
            path.rename(path.with_suffix(".parquet"))
        connection = real(log)
        attempts.append(connection)
        if len(attempts) == 1 or always:
            for path in log.glob("date=*/hour=*/*.parquet"):
                path.rename(path.with_suffix(".away"))
        return connection

    always = False
    monkeypatch.setattr(module, "opened", opened)
    assert Asked(filled, capsys).rows("SELECT count(*) AS n FROM answers") == [{"n": 10}]
    assert len(attempts) == 2
    always = True
    with pytest.raises(InputError, match="No files found"):
        query(filled, "FROM answers", "table")
    assert len(attempts) == 2 + module.ATTEMPTS


def test_a_directory_without_a_deployment_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        query(tmp_path, "FROM answers", "table")
