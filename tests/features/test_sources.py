"""How a file is read: which row is named, and that what is damaged, missing or of the wrong kind is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from features.errors import InputError
from features.importers.generic import import_generic
from tests.features.test_importers import EVENTS_CSV, ITEMS_CSV, parquet, refusal, write


def test_rows_are_counted_as_an_editor_counts_lines(tmp_path: Path) -> None:
    """A field of two lines and a blank line come before the bad record; it is found far down in a long file too."""
    start = 'item_id,title,price\na1,"Mug\nred",1\n\n'
    assert refusal(tmp_path, items=start + "a2,Bag,x\n") == "items.csv: row 5, column price: 'x' is not a number"
    long = start + "".join(f"b{number},Bag,2\n" for number in range(50_000)) + "a2,Bag,x\nb0,Bag,1\n"
    assert refusal(tmp_path, items=long) == "items.csv: row 50005, column price: 'x' is not a number"


def test_a_long_value_does_not_make_a_long_message(tmp_path: Path) -> None:
    message = refusal(tmp_path, items="item_id,title,price\na1,Mug," + "x" * 100_000 + "\n")
    assert re.fullmatch(r"items\.csv: row 2, column price: 'x{60}' is not a number", message)


@pytest.mark.parametrize("keep", [15, 200, -9, -1])
def test_a_gzip_file_that_is_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    rows = "".join(f"u{number},a1,view,{number}\n" for number in range(5000))
    path = write(tmp_path / "events.csv.gz", "user_id,item_id,event,timestamp\n" + rows)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"events\.csv\.gz: this gzip file is cut short or damaged"):
        import_generic([path, write(tmp_path / "items.csv", ITEMS_CSV)])


def test_a_gzip_file_with_a_flipped_bit_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    path, items = write(tmp_path / "events.csv.gz", EVENTS_CSV), write(tmp_path / "items.csv", ITEMS_CSV)
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 1
    for content in (bytes(damaged), EVENTS_CSV.encode()):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"events\.csv\.gz: this gzip file is cut short or damaged"):
            import_generic([path, items])


@pytest.mark.parametrize(
    "stamps",
    [
        pa.array([1, 2**62], pa.timestamp("us")),
        pa.array([1, 2**62], pa.timestamp("ms")),
        pa.array([1, -(2**62)], pa.timestamp("ms", "Asia/Tokyo")),
        pa.array([1, 2**31 - 1], pa.date32()),
    ],
)
def test_a_time_that_no_calendar_has_is_a_bad_row_and_never_another_time(tmp_path: Path, stamps: pa.Array) -> None:
    columns = {"user_id": ["u1", "u1"], "item_id": ["a1", "a1"], "event": ["view", "view"], "timestamp": stamps}
    files = [parquet(tmp_path / "events.parquet", columns), write(tmp_path / "items.csv", ITEMS_CSV)]
    with pytest.raises(InputError, match="row 2, column timestamp: this is no time from 1970 to 2200"):
        import_generic(files)


def test_a_parquet_file_that_is_cut_short_or_holds_wrong_types_is_refused(tmp_path: Path) -> None:
    items = write(tmp_path / "items.csv", ITEMS_CSV)
    good = {"user_id": ["u1"], "item_id": ["a1"], "event": ["view"], "timestamp": [1]}
    path = parquet(tmp_path / "events.parquet", good)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"events\.parquet: this cannot be read as Parquet"):
        import_generic([path, items])
    for column, values, message in (
        ("user_id", [1.5], "column user_id: this is double; an id is text or a whole number"),
        ("user_id", pa.array([None], pa.string()), "row 1, column user_id: an id may not be empty"),
        ("timestamp", [float("nan")], "row 1, column timestamp: nan is not a time"),
        ("quantity", [[1]], "column quantity: this is list<element: int64>, which is no number"),
        ("session_id", [[1]], "column session_id: this is list<element: int64>, which is no text"),
    ):
        with pytest.raises(InputError, match=re.escape(f"events.parquet: {message}")):
            import_generic([parquet(path, good | {column: values}), items])


def test_what_is_missing_or_too_many_among_the_files_is_named(tmp_path: Path) -> None:
    events, items = write(tmp_path / "e.csv", EVENTS_CSV), write(tmp_path / "i.csv", ITEMS_CSV)
    again = write(tmp_path / "j.csv", ITEMS_CSV)
    odd = write(tmp_path / "notes.txt", "hello")
    for files, message in (
        ([events], "e.csv: there is no items file"),
        ([items], "none of the 1 files holds events"),
        ([events, items, again], "j.csv: this is a second items file"),
        ([events, tmp_path / "gone.csv"], "gone.csv: there is no such file"),
        ([events, odd], "notes.txt: its name ends in none of .csv, .csv.gz, .parquet"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            import_generic(files)


def test_progress_rises_to_the_bytes_of_all_files(tmp_path: Path) -> None:
    files = [write(tmp_path / "e.csv.gz", EVENTS_CSV), write(tmp_path / "i.csv", ITEMS_CSV)]
    seen: list[tuple[int, int | None]] = []
    import_generic(files, progress=lambda done, total: seen.append((done, total)))
    total = sum(path.stat().st_size for path in files)
    assert seen == sorted(seen, key=lambda step: step[0])
    assert seen[-1] == (total, total)
