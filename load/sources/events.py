"""From a file of what shoppers did: what they looked at becomes a request, what they bought an event."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from load.errors import LoadError
from load.sources import retail
from load.sources.account import Account
from load.sources.requests import events, in_order, recommendation
from load.sources.tables import Tables, tables
from load.traffic_log import Entry

BAD = ("no user", "no item", "no time that can be read")
OPTIONAL = ("session_id", "quantity", "price")
GENERIC_ONLY = (
    "user_column", "item_column", "kind_column", "time_column", "request_kinds", "event_kinds", "item_in_view",
)  # fmt: skip


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`request_kinds` and `event_kinds` are names with commas between; `spread` is seconds, None: the format's own."""

    format: Literal["generic", "online-retail"] = "generic"
    user_column: str = "user_id"
    item_column: str = "item_id"
    kind_column: str = "event"
    time_column: str = "timestamp"
    request_kinds: str = "view"
    event_kinds: str = "purchase"
    item_in_view: bool = False
    day: str | None = None
    spread: float | None = None
    placement: str = "home"
    count: int = 20
    seed: int = 1


def entries(inputs: Sequence[Path], settings: Settings, account: Account) -> Iterator[Entry]:
    """The requests that these events stand for, in the order of time.

    `spread` moves each later by up to so much, evenly drawn: else all of a file of whole minutes would be asked in
    their first moments.

    Raises LoadError that names file and column for what is no such file.
    """
    with tables() as database:
        if settings.format == "online-retail":
            _only_shared(settings)
            spread_us = round((retail.SPREAD_S if settings.spread is None else settings.spread) * 1e6)
            made = retail.visits(database, inputs, settings, account, spread_us)
            yield from in_order(made, spread_us + retail.PURCHASE_US)
        else:
            spread_us = round((settings.spread or 0) * 1e6)
            yield from in_order(_generic(database, inputs, settings, account, spread_us), spread_us)


def _generic(
    database: Tables, inputs: Sequence[Path], settings: Settings, account: Account, spread_us: int
) -> Iterator[tuple[int, Entry]]:
    asking, telling = _kinds(settings.request_kinds), _kinds(settings.event_kinds)
    database.run(
        "CREATE TABLE lines (row BIGINT, user VARCHAR, item VARCHAR, kind VARCHAR, at_us BIGINT, session VARCHAR,"
        " value DOUBLE, reason VARCHAR)"
    )
    for path in inputs:
        _load(database, path, settings)
    database.run(
        "UPDATE lines SET reason = CASE WHEN coalesce(user, '') = '' THEN 'no user' WHEN coalesce(item, '') = ''"
        " THEN 'no item' WHEN coalesce(at_us, -1) < 0 THEN 'no time that can be read' WHEN kind IS NULL OR"
        " NOT list_contains(?, kind) THEN 'kind ' || coalesce(kind[:40], 'none') END",
        [[*asking, *telling]],
    )
    database.drop_by_reason(account, BAD)
    database.keep_day(settings.day, account)
    rng = random.Random(settings.seed)
    rows = "SELECT row, user, item, kind, at_us, session, value FROM lines WHERE reason IS NULL ORDER BY at_us, row"
    for row, user, item, kind, at_us, session, value in database.rows(rows):
        at = at_us + int(rng.random() * spread_us)
        if kind in asking:
            in_view = item if settings.item_in_view else None
            yield at_us, recommendation(at, user, settings.placement, settings.count, in_view)
        if kind in telling:
            one = {"event_id": f"{settings.seed}-{row}", "user_id": user, "item_id": item, "type": kind}
            for entry in events(at, [_with(one, session_id=session, value=value)]):
                yield at_us, entry


def _load(database: Tables, path: Path, settings: Settings) -> None:
    found = database.columns(path)
    names = (settings.user_column, settings.item_column, settings.kind_column, settings.time_column)
    for name in names:
        if name not in found:
            raise LoadError(f"{path}: there is no column {name}; there are {', '.join(found)}")
    user, item, kind, time = (_quoted(name) for name in names)
    session, quantity, price = (name if name in found else "NULL" for name in OPTIONAL)
    value = f"try_cast({price} AS DOUBLE) * coalesce(try_cast({quantity} AS DOUBLE), 1)"
    worth = f"CASE WHEN {value} >= 0 AND isfinite({value}) THEN {value} END"
    database.take(
        path, f"trim({user}), trim({item}), trim({kind}), microseconds({time}), nullif({session}, ''), {worth}, NULL"
    )


def _only_shared(settings: Settings) -> None:
    plain = Settings()
    for name in GENERIC_ONLY:
        if getattr(settings, name) != getattr(plain, name):
            raise LoadError(f"--{name.replace('_', '-')} is no option of --format online-retail")


def _kinds(text: str) -> list[str]:
    return [kind.strip() for kind in text.split(",") if kind.strip()]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _with(row: dict[str, Any], **known: Any) -> dict[str, Any]:
    return row | {name: value for name, value in known.items() if value is not None}
