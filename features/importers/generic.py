"""The generic format: a shop as one or more files of events, one of items and, if there is one, one of users.

Which file is which is told by its columns:

- events: `user_id, item_id, event, timestamp`, and if need be `session_id, quantity, price`. No others.
- items: `item_id, title`, and if need be `category, price, in_stock` and columns of the shop's own, numeric or not.
- users: `user_id, country`. No others.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import TIMESTAMP, first_true, repeated
from features.errors import InputError
from features.importers import values
from features.importers.reasons import BACK, LATER
from features.importers.sources import Source, read_sources
from features.progress import Progress, Report, silent
from features.shop import EVENTS, ITEMS, RESERVED, USERS, Shop, sorted_events

Kind = Literal["events", "items", "users"]


def import_generic(
    files: Sequence[Path], progress: Progress = silent, until: datetime | None = None
) -> tuple[Shop, Report]:
    """The shop in `files` (CSV, also gzipped, or Parquet), and what was read and dropped. Ids become strings.

    Times and how seconds are told from milliseconds: `features.importers.values.times`. An item without `in_stock` is
    in stock; a user of whom no file speaks has the country ''. Dropped and counted are events after `until`, those with
    a quantity below 0 (what was sent back), exact duplicates, and events of items that the items file lacks. `progress`
    counts bytes.
    Raises InputError, naming file, row and column, for anything else that is not as it should be.
    """
    sources = read_sources(files, progress)
    report = Report(read={str(source.path): source.table.num_rows for source in sources})
    by_kind: dict[Kind, list[Source]] = {"events": [], "items": [], "users": []}
    for source in sources:
        by_kind[_kind(source)].append(source)
    events_of = [_events(source) for source in by_kind["events"]]
    if not events_of:
        raise InputError(f"none of the {len(files)} files holds events (user_id, item_id, event, timestamp)")
    items, users = _items(_only(by_kind, "items")), None
    if by_kind["users"]:
        users = _users(_only(by_kind, "users"))
    events = _usable(pa.concat_tables(events_of), until, report)
    if events.num_rows == 0:
        raise InputError(f"no event is left: each is {LATER} or has a {BACK}", file=by_kind["events"][0].path)
    events = _known(_distinct(events, report), items, report)
    if events.num_rows == 0:
        raise InputError("no event is left: none is of an item in the items file", file=by_kind["events"][0].path)
    shop = Shop(sorted_events(events), items, with_users_of(events, users))
    report.wrote = {"events": shop.events.num_rows, "items": items.num_rows, "users": shop.users.num_rows}
    return shop, report


def with_users_of(events: pa.Table, users: pa.Table | None = None) -> pa.Table:
    """`users`, then those of `events` that it lacks, in order of id, with the country ''."""
    users = USERS.empty_table() if users is None else users
    seen = pc.unique(events["user_id"])
    more = seen.filter(pc.invert(pc.is_in(seen, value_set=users["user_id"])))
    more = more.take(pc.sort_indices(more))
    return pa.concat_tables([users, pa.table([more, pa.repeat("", len(more))], schema=USERS)]).combine_chunks()


def _kind(source: Source) -> Kind:
    names = set(source.table.column_names)
    if "title" in names and "user_id" not in names:
        return "items"
    if names & {"event", "timestamp"} or {"user_id", "item_id"} <= names:
        return "events"
    if "item_id" in names:
        return "items"
    if "user_id" in names:
        return "users"
    raise source.error(f"neither user_id nor item_id is among its columns: {', '.join(source.table.column_names)}")


def _only(by_kind: dict[Kind, list[Source]], kind: Kind) -> Source:
    found = by_kind[kind]
    if not found:
        raise InputError(f"there is no {kind} file (item_id, title) beside the events", file=by_kind["events"][0].path)
    if len(found) > 1:
        raise found[1].error(f"this is a second {kind} file, beside {found[0].path}")
    return found[0]


def _events(source: Source) -> pa.Table:
    source.require(EVENTS.names[:4])
    _no_others(source, EVENTS)
    n, given = source.table.num_rows, source.table.column_names
    columns = [
        values.ids(source, "user_id"),
        values.ids(source, "item_id"),
        values.ids(source, "event"),
        values.times(source, "timestamp"),
        _sessions(source) if "session_id" in given else pa.nulls(n, pa.string()),
        values.numbers(source, "quantity") if "quantity" in given else pa.nulls(n, pa.float64()),
        values.prices(source, "price") if "price" in given else pa.nulls(n, pa.float64()),
    ]
    return pa.table(columns, schema=EVENTS)


def _sessions(source: Source) -> pa.ChunkedArray:
    text = values.words(source, "session_id")
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _items(source: Source) -> pa.Table:
    source.require(ITEMS.names[:2])
    n, given = source.table.num_rows, source.table.column_names
    table = pa.table(
        [
            values.ids(source, "item_id"),
            values.words(source, "title", required=True),
            values.words(source, "category") if "category" in given else pa.repeat("", n),
            values.prices(source, "price") if "price" in given else pa.nulls(n, pa.float64()),
            values.flags(source, "in_stock", default=True) if "in_stock" in given else pa.repeat(True, n),
        ],
        schema=ITEMS,
    )
    _no_repeats(source, "item_id", table["item_id"])
    for name in given:
        if name in RESERVED:
            raise source.error("Endcap counts this itself; the column needs another name", column=name)
        if name not in ITEMS.names:
            read = values.numbers if values.is_numeric(source, name) else values.words
            table = table.append_column(name, read(source, name))
    return table.combine_chunks()


def _users(source: Source) -> pa.Table:
    source.require(USERS.names)
    _no_others(source, USERS)
    users = pa.table([values.ids(source, "user_id"), values.words(source, "country")], schema=USERS)
    _no_repeats(source, "user_id", users["user_id"])
    return users


def _no_others(source: Source, schema: pa.Schema) -> None:
    others = [name for name in source.table.column_names if name not in schema.names]
    if others:
        raise source.error(
            f"unknown columns: {', '.join(others)}; known are {', '.join(schema.names)}", column=others[0]
        )


def _no_repeats(source: Source, column: str, ids: pa.ChunkedArray) -> None:
    if (index := first_true(repeated(ids))) is not None:
        raise source.error(f"{ids[index].as_py()!r} is in an earlier row too", index=index, column=column)


def _usable(events: pa.Table, until: datetime | None, report: Report) -> pa.Table:
    events = _without(events, pc.less(events["quantity"], 0.0), BACK, report)
    if until is None:
        return events
    return _without(events, pc.greater(events["timestamp"], pa.scalar(until, TIMESTAMP)), LATER, report)


def _without(events: pa.Table, bad: pa.ChunkedArray, reason: str, report: Report) -> pa.Table:
    kept = events.filter(pc.invert(pc.fill_null(bad, False)))
    report.dropped[reason] = events.num_rows - kept.num_rows
    return kept


def _distinct(events: pa.Table, report: Report) -> pa.Table:
    """The events without exact duplicates; the first of each stays, in its place."""
    numbered = events.append_column("row", pa.array(np.arange(events.num_rows)))
    first = numbered.group_by(EVENTS.names).aggregate([("row", "min")])["row_min"]
    report.dropped["exact duplicate of another event"] = events.num_rows - len(first)
    return events.take(first.take(pc.sort_indices(first)))


def _known(events: pa.Table, items: pa.Table, report: Report) -> pa.Table:
    known = events.filter(pc.is_in(events["item_id"], value_set=items["item_id"]))
    report.dropped["event of an item that the items file lacks"] = events.num_rows - known.num_rows
    return known
