"""`endcap query`: SQL over the serving log."""

from __future__ import annotations

import csv
import glob
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from features.errors import InputError
from service.answer_log import LOG
from service.answer_table import SCHEMA
from service.console import console
from service.deployment import Deployment

FILES = "/date=*/hour=*/*.parquet"

WIDEST = 60
"""Letters of a cell that a table shows."""

WIDE = 100_000

ATTEMPTS = 3
"""A file may be compacted away between its listing and its reading; the query then runs again."""

EXPLAIN = re.compile(r"\s*EXPLAIN\b(\s+ANALYZE\b)?(\s*\([^)]*\))?", re.IGNORECASE)


def query(directory: Path, sql: str, form: str) -> None:
    """Prints what one reading statement finds in the view `answers`, as a `table`, `csv` or `json` (an object a line).

    Raises InputError, one line, for any other statement and for what DuckDB refuses.
    """
    import duckdb

    try:
        columns, rows = ask(Deployment.at(directory).directory / LOG, sql)
    except duckdb.Error as error:
        raise InputError(" ".join(str(error).split("\n\n")[0].split())) from error
    try:
        show(columns, rows, form)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; the interpreter must not complain at its end either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def ask(log: Path, sql: str, threads: int | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The columns' names and the rows, by so many threads (None: one a core). Raises duckdb.Error or InputError."""
    import duckdb

    if log.is_dir() and not os.access(log, os.R_OK | os.X_OK):  # a pattern would match nothing, and nobody would know
        raise InputError("may not be read by this user", file=log)
    for attempt in range(ATTEMPTS):
        try:
            with opened(log, threads) as connection:
                refuse_unless_reading(connection, sql)
                found = connection.execute(sql)
                return [column[0] for column in found.description], found.fetchall()
        except (duckdb.IOException, FileNotFoundError):
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def opened(log: Path, threads: int | None = None) -> Any:
    """A DuckDB connection that knows `answers`, reads no file outside the log, and cannot be told otherwise."""
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    connection.execute("SET TimeZone = 'UTC'")
    if threads is not None:
        connection.execute(f"SET threads = {threads}")
    pattern = glob.escape(str(log.resolve())) + FILES
    if next(log.glob(FILES.lstrip("/")), None):
        # The pattern itself is named as a path too: where it has brackets, it does not begin with the directory.
        connection.execute(f"SET allowed_directories = [{quoted(log.resolve())}]")
        connection.execute(f"SET allowed_paths = [{quoted(pattern)}]")
        connection.execute(
            f"CREATE VIEW answers AS FROM read_parquet({quoted(pattern)}, union_by_name = true, "
            "hive_partitioning = true, hive_types = {'date': DATE, 'hour': INTEGER})"
        )
    else:
        connection.register("nothing", SCHEMA.empty_table())
        connection.execute("CREATE TABLE answers AS SELECT *, NULL::DATE AS date, NULL::INTEGER AS hour FROM nothing")
        connection.unregister("nothing")
    for setting in (
        "enable_external_access = false",
        "python_enable_replacements = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def refuse_unless_reading(connection: Any, sql: str) -> None:
    """Raises InputError unless this is one statement, and one that changes nothing."""
    import duckdb

    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise InputError(f"one statement is wanted, not {len(statements)}")
    kind = statements[0].type
    if kind == duckdb.StatementType.EXPLAIN:  # EXPLAIN ANALYZE runs what it explains, a COPY TO as well
        explained = connection.extract_statements(EXPLAIN.sub("", statements[0].query, count=1))
        kind = explained[0].type if len(explained) == 1 else kind
    if kind != duckdb.StatementType.SELECT:
        raise InputError(f"only statements that read are run (SELECT, DESCRIBE, SUMMARIZE, EXPLAIN), not {kind.name}")


def quoted(value: Path | str) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def show(columns: Sequence[str], rows: Iterable[tuple[Any, ...]], form: str) -> None:
    match form:
        case "json":
            if len(set(columns)) < len(columns):
                raise InputError(f"two columns have the same name, which one object cannot hold: {', '.join(columns)}")
            for row in rows:
                sys.stdout.write(orjson.dumps(dict(zip(columns, map(plain, row), strict=True))).decode() + "\n")
        case "csv":
            lines = csv.writer(sys.stdout, lineterminator="\n")
            lines.writerow(columns)
            lines.writerows([text(plain(value)) for value in row] for row in rows)
        case _:
            table = Table()
            for name in columns:
                table.add_column(Text(name))
            for row in rows:
                table.add_row(*(Text(shortened(value)) for value in row))
            # A pipe has no width; rich would take 80 letters and cut every cell.
            (console if console.is_terminal else Console(file=console.file, width=WIDE)).print(table)


def plain(value: Any) -> Any:
    """A value as JSON has it: lists and structs stay, times become ISO 8601, what JSON has no type for its text."""
    match value:
        case dict():
            return {str(name): plain(one) for name, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case None | bool() | float() | str():
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else str(value)
        case datetime() | date():
            return value.isoformat()
        case Decimal():
            return float(value)
    return str(value)


def text(value: Any) -> str:
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return "" if value is None else str(value)


def shortened(value: Any) -> str:
    """For a terminal: one that a user id with control letters in it cannot give orders to."""
    shown = f"{value:.6g}" if isinstance(value, float) else text(plain(value))
    shown = "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in shown)
    plan = "\n" in shown
    return shown if plan or len(shown) <= WIDEST else shown[: WIDEST - 1] + "…"
