"""The generic importer: what it reads, what it drops and counts, and how it says what it refuses."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import InputError
from features.importers.generic import import_generic
from features.shop import EVENTS, ITEMS, Shop, validate

EVENTS_CSV = """user_id,item_id,event,timestamp
007,a1,view,2026-01-01T10:00:00Z
u2,a2,purchase,2026-01-01T09:00:00Z
"""
ITEMS_CSV = "item_id,title\na1,Mug\na2,Bag\n"


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def load(folder: Path, events: str | bytes = EVENTS_CSV, items: str | bytes = ITEMS_CSV) -> Shop:
    shop, _ = import_generic([write(folder / "events.csv", events), write(folder / "items.csv", items)])
    return shop


def refusal(folder: Path, events: str | bytes = EVENTS_CSV, items: str | bytes = ITEMS_CSV) -> str:
    with pytest.raises(InputError) as refused:
        load(folder, events, items)
    return str(refused.value).removeprefix(f"{folder}/")


def test_a_shop_in_two_csv_files_becomes_canonical(tmp_path: Path) -> None:
    """Sorted, ids as they stand ("007"), defaults for what the files leave out, every shopper among the users."""
    files = [write(tmp_path / "e.csv", EVENTS_CSV), write(tmp_path / "i.csv", ITEMS_CSV)]
    shop, report = import_generic(files)
    validate(shop)
    assert shop.events["user_id"].to_pylist() == ["u2", "007"]
    assert shop.items.to_pylist()[0] == {
        "item_id": "a1", "title": "Mug", "category": "", "price": None, "in_stock": True
    }  # fmt: skip
    assert shop.users.to_pylist() == [{"user_id": "007", "country": ""}, {"user_id": "u2", "country": ""}]
    assert report.read == {str(files[0]): 2, str(files[1]): 2}
    assert report.wrote == {"events": 2, "items": 2, "users": 2}
    assert set(report.dropped.values()) == {0}


def test_files_are_told_apart_by_their_columns_in_any_order_and_events_are_joined(tmp_path: Path) -> None:
    users = write(tmp_path / "c.csv.gz", "country,user_id\nSpain,u9\nFrance,u2\n")
    second = write(tmp_path / "b.csv.gz", "timestamp,event,item_id,user_id,price\n1767225600,view,a1,u3,2.5\n")
    items, first = write(tmp_path / "a.csv", ITEMS_CSV), write(tmp_path / "d.csv", EVENTS_CSV)
    shop, report = import_generic([users, second, items, first])
    assert shop.events["user_id"].to_pylist() == ["u3", "u2", "007"]
    assert shop.events["price"].to_pylist() == [2.5, None, None]
    assert [tuple(row.values()) for row in shop.users.to_pylist()] == [
        ("u9", "Spain"), ("u2", "France"), ("007", ""), ("u3", "")
    ]  # fmt: skip
    assert list(report.read.values()) == [2, 1, 2, 2]


def test_csv_with_quotes_line_breaks_a_byte_order_mark_and_blank_lines_is_read(tmp_path: Path) -> None:
    items = '\ufeffitem_id,title,size\n\na1,"Mug, ""big""\nand red",\n\na2,Bäg,4\n'
    assert load(tmp_path, items=items).items.select(["title", "size"]).to_pylist() == [
        {"title": 'Mug, "big"\nand red', "size": None},
        {"title": "Bäg", "size": 4.0},
    ]


def test_a_column_of_numbers_is_numeric_and_any_other_a_category(tmp_path: Path) -> None:
    items = "item_id,title,in_stock,weight,grade,empty\na1,Mug,No,1e3,7,\na2,Bag,,,B,\n"
    table = load(tmp_path, items=items).items
    assert [str(field.type) for field in list(table.schema)[len(ITEMS) :]] == ["double", "string", "string"]
    assert table.to_pylist()[0] | {"title": ""} == {
        "item_id": "a1", "title": "", "category": "", "price": None, "in_stock": False,
        "weight": 1000.0, "grade": "7", "empty": "",
    }  # fmt: skip
    assert table["in_stock"].to_pylist() == [False, True]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01 10:30", datetime(2026, 1, 1, 10, 30, tzinfo=UTC)),
        ("2026-01-01T10:30:05.25", datetime(2026, 1, 1, 10, 30, 5, 250_000, tzinfo=UTC)),
        ("2026-01-01T10:30:05.123456789Z", datetime(2026, 1, 1, 10, 30, 5, 123_456, tzinfo=UTC)),
        ("2026-01-01T10:30:05+02:00", datetime(2026, 1, 1, 8, 30, 5, tzinfo=UTC)),
        ("2026-01-01T10:30-0330", datetime(2026, 1, 1, 14, 0, tzinfo=UTC)),
        (" 2026-01-01T10:30:05-01 ", datetime(2026, 1, 1, 11, 30, 5, tzinfo=UTC)),
        ("1767225600", datetime(2026, 1, 1, tzinfo=UTC)),
        ("1767225600.5", datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
        ("1767225600123", datetime(2026, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC)),
    ],
)
def test_times_are_iso_8601_or_seconds_or_milliseconds_and_naive_ones_are_utc(
    tmp_path: Path, text: str, time: datetime
) -> None:
    other = "u2,a2,view,2026-01-01T00:00:00Z\n"
    shop = load(tmp_path, f"user_id,item_id,event,timestamp\nu1,a1,view,{text}\n{other}")
    row = shop.events.filter(pa.compute.equal(shop.events["user_id"], "u1"))
    assert row["timestamp"].to_pylist() == [time]


@given(st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31)), st.integers(-14 * 60, 14 * 60))
def test_any_iso_time_is_read_as_python_reads_it(
    tmp_path_factory: pytest.TempPathFactory, local: datetime, minutes: int
) -> None:
    text = f"{local.isoformat()}{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    expected = datetime.fromisoformat(text)
    if not datetime(1970, 1, 1, tzinfo=UTC) <= expected < datetime(2200, 1, 1, tzinfo=UTC):
        return
    folder = tmp_path_factory.getbasetemp()
    assert (
        load(folder, f"user_id,item_id,event,timestamp\nu1,a1,view,{text}\n").events["timestamp"][0].as_py() == expected
    )


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("stamps", "time"),
    [
        (pa.array([1767225600], pa.int64()), datetime(2026, 1, 1, tzinfo=UTC)),
        (pa.array([1767225600123.0]), datetime(2026, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC)),
        (pa.array([1767225600123456789], pa.timestamp("ns")), datetime(2026, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC)),
        (pa.array([1767225600], pa.timestamp("s", "Asia/Tokyo")), datetime(2026, 1, 1, tzinfo=UTC)),
        (pa.array([date(2026, 1, 1)]), datetime(2026, 1, 1, tzinfo=UTC)),
        (pa.array(["2026-01-01T01:00+01:00"]), datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_parquet_gives_whole_number_ids_and_times_of_any_type(tmp_path: Path, stamps: pa.Array, time: datetime) -> None:
    events = parquet(
        tmp_path / "e.parquet",
        {"user_id": pa.array([7], pa.int32()), "item_id": [1], "event": pa.array(["view"]).dictionary_encode(),
         "timestamp": stamps, "quantity": pa.array([2], pa.int8())},
    )  # fmt: skip
    items = parquet(
        tmp_path / "i.parquet",
        {"item_id": [1], "title": ["Mug"], "in_stock": [False], "made": [date(2020, 1, 1)], "size": [3], "new": [True]},
    )
    shop, _ = import_generic([events, items])
    validate(shop)
    assert shop.events.to_pylist() == [
        {"user_id": "7", "item_id": "1", "event": "view", "timestamp": time, "session_id": None, "quantity": 2.0,
         "price": None}
    ]  # fmt: skip
    assert shop.items.to_pylist() == [
        {"item_id": "1", "title": "Mug", "category": "", "price": None, "in_stock": False, "made": "2020-01-01",
         "size": 3.0, "new": "true"}
    ]  # fmt: skip


def test_exact_duplicates_and_events_of_unknown_items_are_dropped_and_counted(tmp_path: Path) -> None:
    """Rows that differ in anything, a price or a session, stay."""
    rows = ["u1,a1,view,1767225600,s,1", "u1,a1,view,1767225600,s,1", "u1,a1,view,2026-01-01T00:00:00Z,s,1.0"]
    rows += ["u1,a1,view,1767225600,,1", "u1,a1,view,1767225600,,1", "u1,a1,view,1767225600,s,", "u1,zz,view,1,s,"]
    events = write(tmp_path / "e.csv", "user_id,item_id,event,timestamp,session_id,price\n" + "\n".join(rows) + "\n")
    shop, report = import_generic([events, write(tmp_path / "i.csv", ITEMS_CSV)])
    assert shop.events.num_rows == 3
    assert report.dropped == {
        "quantity below 0": 0,
        "exact duplicate of another event": 3,
        "event of an item that the items file lacks": 1,
    }


def test_events_of_a_time_to_come_and_what_was_sent_back_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = ["u1,a1,view,2026-01-01T00:00:01Z,0", "u2,a1,view,2062-01-01,", "u3,a1,purchase,2025-12-31,-2"]
    events = write(tmp_path / "e.csv", "user_id,item_id,event,timestamp,quantity\n" + "\n".join(rows) + "\n")
    until = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    shop, report = import_generic([events, write(tmp_path / "i.csv", ITEMS_CSV)], until=until)
    assert shop.events["user_id"].to_pylist() == shop.users["user_id"].to_pylist() == ["u1"]
    assert report.dropped["later than now + events.max_ahead_s"] == 1 and report.dropped["quantity below 0"] == 1
    with pytest.raises(InputError, match="no event is left: each is later than now"):
        import_generic([events, tmp_path / "i.csv"], until=datetime(2000, 1, 1, tzinfo=UTC))


HEAD = "user_id,item_id,event,timestamp,quantity,price\n"
GOOD = "u1,a1,view,2026-01-01,1,2\n"


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (HEAD + GOOD + ",a1,view,2026-01-01,1,2\n", "events.csv: row 3, column user_id: an id may not be empty"),
        (HEAD + GOOD + "u1,  ,view,2026-01-01,1,2\n", "events.csv: row 3, column item_id: an id may not be empty"),
        (HEAD + GOOD * 2 + "u1,a1,view,soon,1,2\n", "events.csv: row 4, column timestamp: 'soon' is not a time"),
        (HEAD + "u1,a1,view,,1,2\n", "events.csv: row 2, column timestamp: '' is not a time"),
        (HEAD + GOOD + "u1,a1,view,2026-02-30,1,2\n",
         "events.csv: row 3, column timestamp: '2026-02-30' is not a time"),
        (HEAD + "u1,a1,view,2026-01-01T25:00,1,2\n",
         "events.csv: row 2, column timestamp: '2026-01-01T25:00' is not a time"),
        (HEAD + "u1,a1,view,-5,1,2\n", "events.csv: row 2, column timestamp: '-5' is not a time"),
        (HEAD + GOOD + f"u1,a1,view,{10**16},1,2\n", f"events.csv: row 3, column timestamp: '{10**16}' is not a time"),
        (HEAD + "u1,a1,view,2300-01-01,1,2\n",
         "events.csv: row 2, column timestamp: this is no time from 1970 to 2200"),
        (HEAD + GOOD + "u1,a1,view,2026-01-01,many,2\n", "events.csv: row 3, column quantity: 'many' is not a number"),
        (HEAD + GOOD + "u1,a1,view,2026-01-01,inf,2\n", "events.csv: row 3, column quantity: 'inf' is not finite"),
        (HEAD + GOOD + "u1,a1,view,2026-01-01,1,NaN\n", "events.csv: row 3, column price: 'NaN' is no price"),
        (HEAD + GOOD + "u1,a1,view,2026-01-01,1,-0.5\n", "events.csv: row 3, column price: '-0.5' is no price"),
        (HEAD + GOOD + "u1,a1,view,2026-01-01,1\n", "events.csv: row 3: this row has 5 fields, the header 6"),
        (HEAD + GOOD + "u1,a1,view,2026-01-01,1,2,3\n", "events.csv: row 3: this row has 7 fields, the header 6"),
        (HEAD.encode() + b"u1,a\xff,view,2026-01-01,1,2\n", "events.csv: row 2: this is not UTF-8"),
        (HEAD, "events.csv: it holds no rows"),
        ("", "events.csv: it is empty, or its first line is"),
        ("user_id,item_id,event\nu1,a1,view\n",
         "events.csv: column timestamp: there is no such column; there are user_id, item_id, event"),
        ("user_id,,event\nu1,a1,view\n", "events.csv: row 1: column 2 of 3 has no name"),
        ("user_id,item_id,event,event\nu1,a1,view,view\n", "events.csv: column event: several columns have this name"),
        ("who,what\nu1,a1\n", "events.csv: neither user_id nor item_id is among its columns: who, what"),
        ("user_id,item_id,event,timestamp,page,ip\nu1,a1,view,1,x,y\n",
         f"events.csv: column page: unknown columns: page, ip; known are {', '.join(EVENTS.names)}"),
        ("user_id,item_id,event,timestamp\nu1,zz,view,1\n",
         "events.csv: no event is left: none is of an item in the items file"),
    ],
)  # fmt: skip
def test_events_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, events: str | bytes, message: str) -> None:
    assert refusal(tmp_path, events=events) == message


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("item_id,title\na1,Mug\na2,Bag\na1,Cup\n", "items.csv: row 4, column item_id: 'a1' is in an earlier row too"),
        ("item_id,title\na1,\n", "items.csv: row 2, column title: this may not be empty"),
        ("item_id,price\na1,2\n", "items.csv: column title: there is no such column; there are item_id, price"),
        ("item_id,title,price\na1,Mug,-1\n", "items.csv: row 2, column price: '-1' is no price"),
        ("item_id,title,in_stock\na1,Mug,maybe\n", "items.csv: row 2, column in_stock: 'maybe' is no yes or no"),
        ("item_id,title,size\na1,Mug,1\na2,Bag,inf\n", "items.csv: row 3, column size: 'inf' is not finite"),
        ("item_id,title,events_24h\na1,Mug,1\n",
         "items.csv: column events_24h: Endcap counts this itself; the column needs another name"),
    ],
)  # fmt: skip
def test_items_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, items: str, message: str) -> None:
    assert refusal(tmp_path, items=items) == message
