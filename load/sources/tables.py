"""Tables that may be larger than memory, sorted on disk by DuckDB. The only importer of duckdb in this room."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from load.errors import LoadError
from load.sources.account import SHOWN, Account

AT_ONCE = 1_000
DAY_US = 86_400_000_000
MEMORY = "512MB"
NO_LINE = "not a line of this CSV"

TIME_MACRO = """
CREATE MACRO microseconds(text) AS coalesce(
    epoch_us(try_cast(text AS TIMESTAMPTZ)),
    try_cast(round(try_cast(text AS DOUBLE) * CASE WHEN abs(try_cast(text AS DOUBLE)) < 1e11 THEN 1e6 ELSE 1e3 END)
             AS BIGINT))
"""
"""ISO 8601, UTC unless it says otherwise, or seconds or milliseconds since the epoch; NULL for what is none of them."""


class Tables:
    """A database of one command, which answers one query at a time. Raises LoadError for what DuckDB cannot read."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._starts: list[tuple[int, Path]] = []

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run a statement for its effect."""
        with _told():
            self._connection.execute(sql, list(values))

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, a thousand at a time."""
        with _told():
            result = self._connection.execute(sql, list(values))
            while rows := result.fetchmany(AT_ONCE):
                yield from rows

    def one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first column of a query's only row."""
        return next(self.rows(sql, values))[0]

    def columns(self, path: Path) -> list[str]:
        """The names of the columns of a CSV (also .gz) or Parquet file."""
        return [row[0] for row in self.rows(f"DESCRIBE SELECT * FROM {_reader(path)}", [str(path)])]

    def take(self, path: Path, select: str) -> None:
        """Append every row of the file to table `lines`: its number, then expressions over text columns."""
        start = self.one("SELECT count(*) FROM lines")
        self._starts.append((start, path))
        self.run(f"INSERT INTO lines SELECT {start} + row_number() OVER (), {select} FROM {_reader(path)}", [str(path)])

    def drop_by_reason(self, account: Account, bad: Sequence[str]) -> None:
        """Account for table `lines`: its rows, those that CSV could not be read from, and those with a `reason`.

        Rows whose reason is one of `bad` are shown with their place.
        """
        account.read = self.one("SELECT count(*) FROM lines")
        if self.one("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'reject_errors'"):  # there was a CSV
            found = "reject_errors JOIN reject_scans USING (scan_id, file_id)"
            unreadable = f"SELECT DISTINCT file_path, line, csv_line FROM {found}"
            count = self.one(f"SELECT count(*) FROM ({unreadable})")
            account.read += count
            account.dropped.update({NO_LINE: count} if count else {})
            for path, line, text in self.rows(f"{unreadable} ORDER BY ALL LIMIT {SHOWN}"):
                account.show_bad(f"{path}: row {line}: {NO_LINE}: {text[:100]}")
        counts = "SELECT reason, count(*) FROM lines WHERE reason IS NOT NULL GROUP BY reason ORDER BY 2 DESC, 1"
        account.dropped.update(dict(self.rows(counts)))
        shown = "SELECT row, reason FROM lines WHERE list_contains(?, reason) ORDER BY row LIMIT ?"
        for row, reason in self.rows(shown, [list(bad), SHOWN]):
            start, path = max(one for one in self._starts if one[0] < row)
            account.show_bad(f"{path}: readable row {row - start}: {reason}")

    def keep_day(self, day: str | None, account: Account, busy: str = "*") -> None:
        """Leave only one day (UTC) of table `lines`: one given as 2011-12-05, the `busiest`, or all for None.

        The busiest has the most `busy`: lines, or `DISTINCT column`.
        """
        if day is None:
            return
        if day == "busiest":
            busiest = (
                f"SELECT at_us // {DAY_US} FROM lines WHERE reason IS NULL GROUP BY 1 ORDER BY count({busy}) DESC, 1"
            )
            number = next((row[0] for row in self.rows(f"{busiest} LIMIT 1")), 0)
            day = self.one("SELECT DATE '1970-01-01' + ?::INTEGER", [number])
            account.notes.append(f"the busiest day is {day}")
        else:
            number = self.one("SELECT epoch_us(try_cast(? AS TIMESTAMP)) // ?", [day, DAY_US])
            if number is None:
                raise LoadError(f"--day {day}: expected `busiest`, or a day such as 2011-12-05")
        another = f"reason IS NULL AND at_us // {DAY_US} <> ?"
        account.dropped["another day"] = self.one(f"SELECT count(*) FROM lines WHERE {another}", [number])
        self.run(f"UPDATE lines SET reason = 'another day' WHERE {another}", [number])


@contextmanager
def tables() -> Iterator[Tables]:
    """An empty database in a temporary directory, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="endcap-traffic-") as folder:
        settings = {"memory_limit": MEMORY, "threads": 2, "temp_directory": folder}
        with duckdb.connect(str(Path(folder) / "lines.duckdb"), config=settings) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(TIME_MACRO)
            yield Tables(connection)


def _reader(path: Path) -> str:
    """The table function that reads the file named by the statement's parameter."""
    if not path.is_file():
        raise LoadError(f"{path}: No such file")
    if path.suffix == ".parquet":
        return "(SELECT CAST(COLUMNS(*) AS VARCHAR) FROM read_parquet(?))"
    return (
        "read_csv(?, all_varchar = true, header = true, delim = ',', quote = '\"', escape = '\"', store_rejects = true)"
    )


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise LoadError(str(error).partition("\n")[0]) from error
    except RuntimeError as error:  # what DuckDB makes of a signal that came during a query
        if isinstance(error.__context__, KeyboardInterrupt | SystemExit):
            raise error.__context__ from None
        raise
