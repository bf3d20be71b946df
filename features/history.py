"""From a shop's events to the rows of its feature views, as the offline store keeps them.

Every row is stamped with the time from which it was true, so that a point-in-time join finds what was known then:

- user_activity, user_recent   a row for each instant at which the user did something
- user_profile                 a row for each day on which the user was active, stamped with the day's end
- item_stats                   a row an item and day, stamped 00:00 UTC, from the day of its first event on

and for user_profile and item_stats one more of every entity at the newest event.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.errors import InputError
from features.files import writing
from features.functions import DAY, activity, item_popularity, kind_codes, profile, recent
from features.progress import Progress, Report, silent

VIEWS = ("user_profile", "user_activity", "user_recent", "item_stats")
STEP = 500
"""Entities between two reports of progress."""


class Columns:
    """Grows a feature view's rows entity by entity; lists of items are kept as codes until the end."""

    def __init__(self, entity: str) -> None:
        self.entity = entity
        self.ids: list[str] = []
        self.rows: list[int] = []
        self.times: list[npt.NDArray[np.int64]] = []
        self.parts: dict[str, list[Any]] = {}

    def add(self, entity_id: str, at: npt.NDArray[np.int64], features: dict[str, Any]) -> None:
        self.ids.append(entity_id)
        self.rows.append(len(at))
        self.times.append(at)
        for name, values in features.items():
            self.parts.setdefault(name, []).append(values)

    def table(self, items: pa.Array) -> pa.Table:
        ids = pa.array(self.ids, pa.string()).take(pa.array(np.repeat(np.arange(len(self.ids)), self.rows)))
        times = pa.array(np.concatenate(self.times), pa.timestamp("us", tz="UTC"))
        columns = {self.entity: ids, "event_timestamp": times}
        for name, parts in self.parts.items():
            columns[name] = lists(parts, items) if name.endswith("item_ids") else flat(parts)
        table = pa.table(columns)
        return table.sort_by([("event_timestamp", "ascending"), (self.entity, "ascending")])


def flat(parts: list[Any]) -> pa.Array:
    if isinstance(parts[0], np.ndarray):
        return pa.array(np.concatenate(parts))
    return pa.array([value for part in parts for value in part])


def lists(parts: list[list[list[int]]], items: pa.Array) -> pa.Array:
    """Lists of item codes -> list<string>, without a Python string an element."""
    sizes = np.fromiter((len(row) for part in parts for row in part), np.int32)
    codes = np.fromiter((code for part in parts for row in part for code in row), np.int32, count=int(sizes.sum()))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), items.take(pa.array(codes)))


def write_history(
    events: pa.Table, items: pa.Table, users: pa.Table, directory: Path, progress: Progress = silent
) -> Report:
    """Writes the four feature files to `directory`, beside and then renamed. Tables as in `features.shop`.

    Raises InputError when there are no events, NotWritten when the disk refuses.
    """
    if not events.num_rows:
        raise InputError("there are no events to make features of", file="events.parquet")
    report = Report(read={"events": events.num_rows, "items": items.num_rows, "users": users.num_rows})
    directory.parent.mkdir(parents=True, exist_ok=True)
    history = History(events, items, users)
    total = len(history.user_ids) + items.num_rows
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".features-") as beside:
        for name, table in (*history.users(progress, total), *history.items(progress, total)):
            with writing(directory / f"{name}.parquet"):
                pq.write_table(table, Path(beside) / f"{name}.parquet", compression="zstd")
            report.wrote[name] = table.num_rows
        directory.mkdir(exist_ok=True)
        for name in VIEWS:
            (Path(beside) / f"{name}.parquet").replace(directory / f"{name}.parquet")
    return report


class History:
    """The events as arrays, with each event's item looked up once."""

    def __init__(self, events: pa.Table, items: pa.Table, users: pa.Table) -> None:
        self.items_table, self.item_ids = items, items["item_id"].combine_chunks()
        self.item = pc.index_in(events["item_id"], value_set=self.item_ids).to_numpy().astype(np.int64)
        self.user_ids: list[str] = users["user_id"].to_pylist()
        self.countries: list[str] = users["country"].to_pylist()
        self.user = pc.index_in(events["user_id"], value_set=users["user_id"].combine_chunks()).to_numpy()
        self.times = events["timestamp"].cast(pa.int64()).to_numpy()
        self.kinds = events["event"].to_numpy().astype(str)
        self.codes = kind_codes(self.kinds.tolist())
        self.purchase = self.kinds == "purchase"
        price = items["price"].to_numpy().astype(float)[self.item]
        paid = events["price"].to_numpy().astype(float)
        quantity = np.nan_to_num(events["quantity"].to_numpy().astype(float), nan=1.0)
        self.price = price
        self.spend = np.where(self.purchase, np.nan_to_num(np.where(np.isnan(paid), price, paid)) * quantity, 0.0)
        self.category = np.array(items["category"].to_pylist(), object)[self.item]
        self.session = events["session_id"].to_pylist()
        self.newest = int(self.times[-1])

    def groups(self, keys: npt.NDArray[np.integer[Any]], count: int) -> Iterator[npt.NDArray[np.int64]]:
        """The places of each key's events, oldest first, for keys 0..count-1."""
        order = np.argsort(keys, kind="stable")
        yield from np.split(order, np.searchsorted(keys[order], np.arange(1, count)))

    def users(self, progress: Progress, total: int) -> list[tuple[str, pa.Table]]:
        views = {name: Columns("user_id") for name in ("user_profile", "user_activity", "user_recent")}
        for number, places in enumerate(self.groups(self.user, len(self.user_ids))):
            if number % STEP == 0:
                progress(number, total)
            if not len(places):
                continue
            who, times, purchase = self.user_ids[number], self.times[places], self.purchase[places]
            at = np.unique(times)
            views["user_activity"].add(who, at, activity(times, self.codes[places], self.spend[places], at))
            seen, bought = recent(times, self.item[places].tolist(), purchase, at)
            views["user_recent"].add(who, at, {"item_ids": seen, "purchased_item_ids": bought})
            # An order is a session's purchases or, without sessions, one instant's.
            orders = [
                (self.session[place] or str(self.times[place])) if self.purchase[place] else None for place in places
            ]
            at = self.day_ends(times)
            slow = profile(times, self.price[places], self.category[places].tolist(), orders, at)
            slow["country"] = [self.countries[number]] * len(at)
            views["user_profile"].add(who, at, slow)
        tables = {name: columns.table(self.item_ids) for name, columns in views.items()}
        return [(name, conform(table)) for name, table in tables.items()]

    def day_ends(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The end of each day with an event, never past the newest event, which is in it for everyone."""
        ends = (times // DAY + 1) * DAY
        return np.unique(np.append(np.minimum(ends, self.newest), self.newest))

    def items(self, progress: Progress, total: int) -> list[tuple[str, pa.Table]]:
        columns = Columns("item_id")
        done = total - self.items_table.num_rows
        ids, stock = self.item_ids.to_pylist(), self.items_table["in_stock"].to_numpy()
        prices = self.items_table["price"].to_numpy().astype(np.float32)
        categories = self.items_table["category"].to_pylist()
        for number, places in enumerate(self.groups(self.item, len(ids))):
            if number % STEP == 0:
                progress(done + number, total)
            times = self.times[places]
            first = int(times[0]) // DAY + 1 if len(times) else self.newest // DAY + 1
            midnights = np.arange(first, self.newest // DAY + 1, dtype=np.int64) * DAY
            at = np.unique(np.append(midnights, self.newest))
            # A midnight's snapshot covers what came strictly before it.
            features: dict[str, Any] = {
                **item_popularity(times, self.purchase[places], np.where(at == self.newest, at, at - 1)),
                "price": np.full(len(at), prices[number]),
                "category": [categories[number]] * len(at),
                "in_stock": np.full(len(at), stock[number]),
            }
            columns.add(ids[number], at, features)
        progress(total, total)
        return [("item_stats", conform(columns.table(self.item_ids)))]


FLOATS = ("tenure_days", "avg_price", "price", "spend_30d")


def conform(table: pa.Table) -> pa.Table:
    """The types that the Feast definitions declare: Float32 for floats, with unknown ones null, Int64 for counts."""
    for name in FLOATS:
        if name in table.column_names:
            values = pc.if_else(pc.is_nan(table[name].cast("float64")), None, table[name].cast("float64"))
            table = table.set_column(table.column_names.index(name), name, values.cast("float32"))
    if "orders" in table.column_names:
        table = table.set_column(table.column_names.index("orders"), "orders", table["orders"].cast("int64"))
    return table
