"""A shop's data in its canonical form: three Arrow tables, kept as Parquet files in one directory.

- `events.parquet`: who did what to which item, when; sorted by (timestamp, user_id), stable.
- `items.parquet`: the catalogue; every item of the events is in it. Columns after `in_stock` are the shop's own:
  float64 where numeric (null = unknown), else string, taken as a category ('' = unknown).
- `users.parquet`: the shoppers; every user of the events is in it.

Times are microseconds, because DuckDB, which computes Feast's offline joins, casts no nanoseconds with a time zone.
Rows of a Parquet file are counted from 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.columns import (
    EARLIEST,
    LATEST,
    TIMESTAMP,
    blank,
    first_true,
    not_a_price,
    not_finite,
    outside_time,
    repeated,
)
from features.errors import InputError
from features.files import writing

EVENTS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event", pa.string()),
        ("timestamp", TIMESTAMP),
        ("session_id", pa.string()),
        ("quantity", pa.float64()),
        ("price", pa.float64()),
    ]
)
ITEMS = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("category", pa.string()),
        ("price", pa.float64()),
        ("in_stock", pa.bool_()),
    ]
)
USERS = pa.schema([("user_id", pa.string()), ("country", pa.string())])
RESERVED = ("events_24h", "events_7d", "events_30d", "purchases_7d", "purchases_30d", "popularity")
"""What training and bundles call the popularity that they count themselves: no names for a shop's own columns."""

EVENTS_FILE, ITEMS_FILE, USERS_FILE = "events.parquet", "items.parquet", "users.parquet"


@dataclass(frozen=True, slots=True)
class Shop:
    """`events` has the schema EVENTS, `users` USERS; `items` has ITEMS, then float64 or string columns of the shop."""

    events: pa.Table
    items: pa.Table
    users: pa.Table


def sorted_events(events: pa.Table) -> pa.Table:
    """The events in their canonical order: by (timestamp, user_id), rows that tie in the order they came."""
    # Arrow's sort_indices is stable.
    return events.take(pc.sort_indices(events, sort_keys=[("timestamp", "ascending"), ("user_id", "ascending")]))


def read_shop(directory: Path) -> Shop:
    """The shop kept in `directory`. Raises InputError naming file, row and column when it is none."""
    shop = Shop(*(_read(directory / name) for name in (EVENTS_FILE, ITEMS_FILE, USERS_FILE)))
    validate(shop)
    return shop


def write_shop(shop: Shop, directory: Path) -> None:
    """Keep `shop` in `directory`, which is made if need be. All three files are written beside, then renamed.

    Raises InputError for a shop that is not valid, NotWritten when the disk refuses; the old files stay as they were.
    """
    validate(shop)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".writing-") as beside:
        files = ((EVENTS_FILE, shop.events), (ITEMS_FILE, shop.items), (USERS_FILE, shop.users))
        for name, table in files:
            with writing(directory / name):
                pq.write_table(table, Path(beside) / name, compression="zstd")
        for name, _ in files:
            (Path(beside) / name).replace(directory / name)


def validate(shop: Shop) -> None:
    """Raises InputError, naming file, row and column, unless the three tables hold what the module's docstring says."""
    _validate_schema(shop)
    _validate_events(shop.events)
    _validate_items(shop.items)
    for column in USERS.names:
        _refuse(USERS_FILE, shop.users, column, pc.is_null, "is null")
    _validate_ids(USERS_FILE, shop.users, "user_id")
    for column, known, file in (
        ("user_id", shop.users["user_id"], USERS_FILE),
        ("item_id", shop.items["item_id"], ITEMS_FILE),
    ):
        _refuse(EVENTS_FILE, shop.events, column, _not_in(known), f"is not in {file}")


def _read(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except FileNotFoundError as error:
        raise InputError("there is no such file", file=path) from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"this cannot be read as Parquet: {str(error).splitlines()[0]}", file=path) from error


def _validate_schema(shop: Shop) -> None:
    for file, table, schema in (
        (EVENTS_FILE, shop.events, EVENTS),
        (ITEMS_FILE, shop.items, ITEMS),
        (USERS_FILE, shop.users, USERS),
    ):
        names = table.column_names
        if names[: len(schema)] != schema.names or len(set(names)) != len(names):
            raise InputError(f"its columns are {', '.join(names)}; they start {', '.join(schema.names)}", file=file)
        for field in schema:
            if table.schema.field(field.name).type != field.type:
                found = table.schema.field(field.name).type
                raise InputError(f"this is {found}, not {field.type}", file=file, column=field.name)
        for name in names[len(schema) :]:
            if file != ITEMS_FILE:
                raise InputError("there is no such column", file=file, column=name)
            if name in RESERVED:
                raise InputError("Endcap counts this itself; the column needs another name", file=file, column=name)
            if table.schema.field(name).type not in (pa.float64(), pa.string()):
                found = table.schema.field(name).type
                raise InputError(f"this is {found}, neither double nor string", file=file, column=name)


def _validate_events(events: pa.Table) -> None:
    for column in ("user_id", "item_id", "event"):
        _refuse(EVENTS_FILE, events, column, blank, "is empty")
    _refuse(EVENTS_FILE, events, "timestamp", outside_time, f"is no time from {EARLIEST:%Y} to {LATEST:%Y}")
    _refuse(EVENTS_FILE, events, "quantity", not_finite, "is not finite")
    _refuse(EVENTS_FILE, events, "price", not_a_price, "is no price")
    if events.num_rows > 1:
        before, after = events.slice(0, events.num_rows - 1), events.slice(1)
        unordered = pc.or_(
            pc.greater(before["timestamp"], after["timestamp"]),
            pc.and_(pc.equal(before["timestamp"], after["timestamp"]), pc.greater(before["user_id"], after["user_id"])),
        )
        if (row := first_true(unordered)) is not None:
            raise InputError(
                "events are not sorted by timestamp, then user_id", file=EVENTS_FILE, row=row + 2, column="timestamp"
            )


def _validate_items(items: pa.Table) -> None:
    _validate_ids(ITEMS_FILE, items, "item_id")
    _refuse(ITEMS_FILE, items, "title", blank, "is empty")
    _refuse(ITEMS_FILE, items, "price", not_a_price, "is no price")
    for column in items.column_names[1:]:
        kind = items.schema.field(column).type
        if column != "price" and kind == pa.float64():
            _refuse(ITEMS_FILE, items, column, not_finite, "is not finite")
        elif kind != pa.float64():
            _refuse(ITEMS_FILE, items, column, pc.is_null, "is null")


def _validate_ids(file: str, table: pa.Table, column: str) -> None:
    _refuse(file, table, column, blank, "is empty")
    _refuse(file, table, column, repeated, "is not the first of its id")


def _refuse(file: str, table: pa.Table, column: str, is_bad: Callable[[pa.ChunkedArray], pa.Array], why: str) -> None:
    if (row := first_true(is_bad(table[column]))) is not None:
        raise InputError(f"{table[column][row].as_py()!r} {why}", file=file, row=row + 1, column=column)


def _not_in(known: pa.ChunkedArray) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    return lambda values: pc.invert(pc.is_in(values, value_set=known))
