"""The serving log counted by DuckDB, in a process of its own: `python -m service.served_rows ASKED` prints JSON rows.

DuckDB takes a hundred megabytes for a log of a day, and does not give all of them back. A process that has it loaded
anyway counts itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from features.child import child, last_line
from service.errors import LogUnreadable
from service.tallies import LEAST_S, STEPS

SQL = """
    WITH slos(view, slo) AS (VALUES {slos}), seen AS (
        SELECT floor(epoch(time) / {seconds})::BIGINT * {seconds} // 60 AS minute, placement, version,
               unnest(views, recursive := true)
        FROM answers WHERE date >= DATE '{date}' AND epoch(time) >= {since} AND epoch(time) < {before}
    )
    SELECT minute, placement, version, seen.view, status,
           CASE WHEN age_s IS NOT NULL THEN floor(ln(greatest(age_s, {least})) * {steps!r})::BIGINT END AS bucket,
           count(*), count_if(coalesce(age_s <= slo, false))
    FROM seen LEFT JOIN slos ON slos.view = seen.view {only} GROUP BY ALL
"""

Row = tuple[int, str | None, str, str, str, int | None, int, int]
"""Minute since the epoch, placement, version, view, status, bucket of ages, answers, those within the SLO."""


class Asked(Struct, frozen=True):
    """The log's answers from `since` to `before` (seconds since the epoch), by the minute or the hour."""

    log: str
    slos: dict[str, float | None]
    since: float
    before: float
    view: str | None = None
    hourly: bool = False
    threads: int | None = None


class Said(Struct, omit_defaults=True):
    rows: list[Row] = []
    error: str = ""


def rows_of(asked: Asked) -> list[Row]:
    """Blocks. Raises LogUnreadable."""
    log = Path(asked.log)
    if not log.exists():
        return []
    if "duckdb" in sys.modules:
        return count(asked)
    process = child("service.served_rows", msgspec.json.encode(asked).decode())
    out, complaints = process.communicate()
    try:
        said = msgspec.json.decode(out, type=Said)
    except msgspec.DecodeError as error:
        why = last_line(complaints, process.returncode)
        raise LogUnreadable(f"the serving log could not be read: {why}") from error
    if said.error:
        raise LogUnreadable(said.error)
    return said.rows


def count(asked: Asked) -> list[Row]:
    """By DuckDB in this process. Raises LogUnreadable."""
    import duckdb

    from features.errors import InputError
    from service.commands.query import ask, quoted

    named = [f"({quoted(name)}, {slo})" for name, slo in asked.slos.items() if slo is not None]
    sql = SQL.format(
        slos=", ".join(named) or "('', 0.0)", seconds=3600 if asked.hourly else 60, since=asked.since,
        before=asked.before, date=f"{datetime.fromtimestamp(asked.since, UTC):%Y-%m-%d}", least=LEAST_S, steps=STEPS,
        only="" if asked.view is None else f"WHERE seen.view = {quoted(asked.view)}",
    )  # fmt: skip
    try:
        rows: Sequence[Row] = ask(Path(asked.log), sql, asked.threads)[1]
    except (duckdb.Error, InputError, OSError) as error:
        raise LogUnreadable(f"the serving log could not be read: {' '.join(str(error).split())[:200]}") from error
    return list(rows)


def main(asked: str) -> None:
    out = sys.stdout.buffer
    os.nice(5)  # beside a service that answers
    try:
        said = Said(count(msgspec.json.decode(asked, type=Asked)))
    except LogUnreadable as error:
        said = Said(error=str(error))
    out.write(msgspec.json.encode(said))


if __name__ == "__main__":
    main(sys.argv[1])
