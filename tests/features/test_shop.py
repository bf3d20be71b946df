"""The canonical form of a shop: what is kept, what is refused, and that a failure leaves the old files alone."""

from __future__ import annotations

import resource
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from features.errors import InputError, NotWritten
from features.shop import EVENTS, ITEMS, USERS, Shop, read_shop, sorted_events, validate, write_shop


def at(hour: int) -> datetime:
    return datetime(2026, 1, 1, hour, tzinfo=UTC)


EVENT_ROWS: dict[str, list[Any]] = {
    "user_id": ["u1", "u2", "u1"],
    "item_id": ["007", "007", "8"],
    "event": ["view", "purchase", "cart"],
    "timestamp": [at(1), at(2), at(2)],
    "session_id": ["s", None, None],
    "quantity": [None, 2.0, 1.0],
    "price": [1.5, 1.5, None],
}
ITEM_ROWS: dict[str, list[Any]] = {
    "item_id": ["007", "8"],
    "title": ["Mug", "Bag"],
    "category": ["", "Bags"],
    "price": [1.5, None],
    "in_stock": [True, False],
}
USER_ROWS: dict[str, list[Any]] = {"user_id": ["u1", "u2", "u3"], "country": ["Spain", "", ""]}


def shop(
    *, events: dict[str, list[Any]] | None = None, items: dict[str, list[Any]] | None = None, users: Any = None
) -> Shop:
    rows = pa.table({**EVENT_ROWS, **(events or {})}, schema=EVENTS)
    item_rows = {**ITEM_ROWS, **(items or {})}
    extra = [(name, pa.array(values).type) for name, values in item_rows.items() if name not in ITEMS.names]
    item_table = pa.table(item_rows, schema=pa.schema([*ITEMS, *(pa.field(*pair) for pair in extra)]))
    ordered = rows if events and "timestamp" in events else sorted_events(rows)
    return Shop(ordered, item_table, pa.table({**USER_ROWS, **(users or {})}, schema=USERS))


def test_a_shop_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Also its own columns, its nulls, and times as microseconds in UTC."""
    kept = shop(items={"weight": [0.5, None], "color": ["red", ""]})
    write_shop(kept, tmp_path / "data")
    back = read_shop(tmp_path / "data")
    assert back.events.equals(kept.events)
    assert back.items.equals(kept.items)
    assert back.users.equals(kept.users)
    assert str(back.events.schema.field("timestamp").type) == "timestamp[us, tz=UTC]"


def test_events_are_sorted_by_time_then_user_and_ties_keep_their_order() -> None:
    rows = {**EVENT_ROWS, "user_id": ["u2", "u2", "u1"], "timestamp": [at(2), at(2), at(2)]}
    assert sorted_events(pa.table(rows, schema=EVENTS))["event"].to_pylist() == ["cart", "view", "purchase"]


@pytest.mark.parametrize(
    ("table", "column", "values", "file", "row", "words"),
    [
        ("events", "user_id", ["u1", " ", "u1"], "events.parquet", None, "is empty"),
        ("events", "item_id", ["007", "007", None], "events.parquet", None, "is empty"),
        ("events", "event", ["view", "", "view"], "events.parquet", None, "is empty"),
        ("events", "timestamp", [at(3), at(2), at(4)], "events.parquet", 2, "not sorted"),
        ("events", "timestamp", [at(2), at(2), at(2)], "events.parquet", 3, "not sorted"),
        ("events", "timestamp", [datetime(1969, 1, 1, tzinfo=UTC), at(1), at(2)], "events.parquet", 1, "1970"),
        ("events", "quantity", [None, float("inf"), 1.0], "events.parquet", None, "not finite"),
        ("events", "price", [1.0, -0.01, 1.0], "events.parquet", None, "no price"),
        ("events", "user_id", ["u1", "u9", "u1"], "events.parquet", None, "'u9' is not in users.parquet"),
        ("events", "item_id", ["007", "9", "8"], "events.parquet", None, "'9' is not in items.parquet"),
        ("items", "item_id", ["007", "007"], "items.parquet", 2, "'007' is not the first"),
        ("items", "title", ["Mug", ""], "items.parquet", 2, "is empty"),
        ("items", "category", [None, "Bags"], "items.parquet", 1, "is null"),
        ("items", "price", [float("nan"), 1.0], "items.parquet", 1, "no price"),
        ("items", "in_stock", [True, None], "items.parquet", 2, "is null"),
        ("items", "weight", [1.0, float("inf")], "items.parquet", 2, "not finite"),
        ("items", "color", ["red", None], "items.parquet", 2, "is null"),
        ("users", "user_id", ["u1", "u2", "u2"], "users.parquet", 3, "not the first"),
        ("users", "country", ["Spain", None, ""], "users.parquet", 2, "is null"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_file_row_and_column(
    table: str, column: str, values: list[Any], file: str, row: int | None, words: str
) -> None:
    with pytest.raises(InputError) as refused:
        validate(shop(**{table: {column: values}}))
    assert refused.value.file == file
    assert refused.value.column == column
    assert row is None or refused.value.row == row
    assert refused.value.row is not None
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("unit", ["ns", "ms"])
def test_times_that_are_not_microseconds_are_refused(unit: str) -> None:
    whole = shop()
    place = EVENTS.get_field_index("timestamp")
    other = whole.events.set_column(place, "timestamp", whole.events["timestamp"].cast(pa.timestamp(unit, tz="UTC")))
    with pytest.raises(InputError, match=r"events\.parquet: column timestamp: .* not timestamp\[us, tz=UTC\]"):
        validate(Shop(other, whole.items, whole.users))


def test_columns_that_no_one_knows_are_refused_outside_the_items() -> None:
    whole = shop()
    with pytest.raises(InputError, match=r"events\.parquet: column page: there is no such column"):
        validate(Shop(whole.events.append_column("page", pa.array(["a"] * 3)), whole.items, whole.users))
    with pytest.raises(InputError, match=r"items\.parquet: column size: this is int64"):
        validate(Shop(whole.events, whole.items.append_column("size", pa.array([1, 2])), whole.users))
    with pytest.raises(InputError, match=r"users\.parquet: its columns are country; they start user_id, country"):
        validate(Shop(whole.events, whole.items, whole.users.select(["country"])))


def test_a_shop_that_is_refused_leaves_the_old_files_as_they_were(tmp_path: Path) -> None:
    write_shop(shop(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError):
        write_shop(shop(items={"item_id": ["007", "007"]}), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_write_that_fails_half_way_leaves_the_old_files_as_they_were(tmp_path: Path) -> None:
    """The users do not fit on the disk, here for a limit on the size of files; events and items would have."""
    write_shop(shop(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    many = ["u1", "u2", *(f"x{number * 7919 % 100_003}" for number in range(60_000))]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    try:
        with pytest.raises(NotWritten, match=r"users\.parquet: cannot be written: .*File too large"):
            write_shop(
                shop(items={"title": ["Cup", "Sack"]}, users={"user_id": many, "country": [""] * len(many)}), tmp_path
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"events\.parquet: there is no such file"):
        read_shop(tmp_path)
    write_shop(shop(), tmp_path)
    items = tmp_path / "items.parquet"
    items.write_bytes(items.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"items\.parquet: this cannot be read as Parquet"):
        read_shop(tmp_path)
