"""The importer of the UCI "Online Retail" file, on made-up lines in its format, and on the real one if it is there."""

from __future__ import annotations

import gzip
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from features.errors import InputError
from features.importers import gifts
from features.importers.online_retail import import_online_retail
from features.progress import Report
from features.shop import Shop, validate

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"


def line(
    invoice: str = "536365",
    code: str = "85123A",
    description: str = "WHITE HANGING HEART T-LIGHT HOLDER",
    quantity: str = "6",
    date: str = "2010-12-01 08:26:00",
    price: str = "2.55",
    customer: str = "17850.0",
    country: str = "United Kingdom",
) -> str:
    return f'{invoice},{code},"{description}",{quantity},{date},{price},{customer},{country}\n'


def load(
    folder: Path, *lines: str, shift_to: datetime | None = None, until: datetime | None = None
) -> tuple[Shop, Report]:
    path = folder / "retail.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "".join(lines)).encode()))
    shop, report = import_online_retail([path], shift_to=shift_to, until=until)
    validate(shop)
    return shop, report


def test_lines_of_a_time_to_come_are_dropped_unless_all_times_move_before_it(tmp_path: Path) -> None:
    until, lines = datetime(2020, 1, 1, tzinfo=UTC), (line(), line(invoice="536366", date="2062-12-01 08:26:00"))
    shop, report = load(tmp_path, *lines, until=until)
    assert shop.events.num_rows == 1 and report.dropped["later than now + events.max_ahead_s"] == 1
    shop, report = load(tmp_path, *lines, until=until, shift_to=datetime(2026, 1, 1, tzinfo=UTC))
    assert shop.events.num_rows == 2 and "later than now + events.max_ahead_s" not in report.dropped


def test_a_line_becomes_a_purchase_of_the_invoice(tmp_path: Path) -> None:
    shop, report = load(tmp_path, line())
    assert shop.events.to_pylist() == [
        {"user_id": "17850", "item_id": "85123A", "event": "purchase",
         "timestamp": datetime(2010, 12, 1, 8, 26, tzinfo=UTC), "session_id": "536365", "quantity": 6.0, "price": 2.55}
    ]  # fmt: skip
    assert shop.items.to_pylist() == [
        {"item_id": "85123A", "title": "White Hanging Heart T-Light Holder", "category": "Other", "price": 2.55,
         "in_stock": True}
    ]  # fmt: skip
    assert shop.users.to_pylist() == [{"user_id": "17850", "country": "United Kingdom"}]
    assert list(report.read.values()) == [1]
    assert report.wrote == {"events": 1, "items": 1, "users": 1}


def test_what_is_no_purchase_of_goods_by_a_known_customer_is_dropped_once_for_its_first_reason(tmp_path: Path) -> None:
    _, report = load(
        tmp_path,
        line(),
        line(invoice="C536379", quantity="-1"),
        line(invoice="c536380", customer=""),
        line(customer="", quantity="-3"),
        line(quantity="0", price="0"),
        line(price="0"),
        line(price="-11062.06"),
        line(code="POST", description="POSTAGE"),
        line(code="gift_0001_10", description="Dotcomgiftshop Gift Voucher £10.00"),
        line(code="BANK CHARGES", description="Bank Charges"),
        line(code="M", description="Manual"),
        line(code="23444", description="Next Day Carriage"),
    )
    assert report.dropped == {
        "cancelled invoice (InvoiceNo starts with C)": 2,
        "no customer": 1,
        "quantity not above 0": 1,
        "price not above 0": 2,
        "not a product (postage, fees, vouchers, manual entries)": 5,
        "merged into another line of the same invoice and item": 0,
    }


def test_goods_have_a_code_of_five_digits_or_of_the_dog_range(tmp_path: Path) -> None:
    shop, _ = load(tmp_path, line(code="22423"), line(code="15056BL"), line(code="DCGS0003"), line(code="2242"))
    assert shop.items["item_id"].to_pylist() == ["15056BL", "22423", "DCGS0003"]


def test_lines_of_one_item_and_invoice_merge_also_across_the_case_of_the_code(tmp_path: Path) -> None:
    """Quantities add up, the price is the mean by quantity, the time the first."""
    shop, report = load(
        tmp_path,
        line(quantity="1", price="4", date="2010-12-01 08:27:00"),
        line(code="85123a", quantity="3", price="2"),
        line(invoice="536366"),
    )
    assert [tuple(row.values())[3:] for row in shop.events.to_pylist()] == [
        (datetime(2010, 12, 1, 8, 26, tzinfo=UTC), "536365", 4.0, 2.5),
        (datetime(2010, 12, 1, 8, 26, tzinfo=UTC), "536366", 6.0, 2.55),
    ]
    assert report.dropped["merged into another line of the same invoice and item"] == 1


def test_times_are_british_and_summer_time_is_an_hour_ahead_of_utc(tmp_path: Path) -> None:
    shop, _ = load(tmp_path, line(date="2011-07-01 12:00:00"))
    assert shop.events["timestamp"].to_pylist() == [datetime(2011, 7, 1, 11, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("shift_to", "newest", "days"),
    [
        (datetime(2026, 1, 15, 12, tzinfo=UTC), datetime(2026, 1, 15, 8, 26, tzinfo=UTC), 5524),
        (datetime(2026, 1, 15, 8, 26, tzinfo=UTC), datetime(2026, 1, 15, 8, 26, tzinfo=UTC), 5524),
        (datetime(2026, 1, 15, 8, 25), datetime(2026, 1, 14, 8, 26, tzinfo=UTC), 5523),
        (datetime(2010, 11, 30, tzinfo=UTC), datetime(2010, 11, 29, 8, 26, tzinfo=UTC), -2),
    ],
)
def test_a_shift_moves_all_times_by_whole_days_so_that_the_newest_is_the_last_at_or_before_it(
    tmp_path: Path, shift_to: datetime, newest: datetime, days: int
) -> None:
    lines = line(), line(invoice="536300", date="2010-11-21 08:26:00")
    shop, report = load(tmp_path, *lines, shift_to=shift_to)
    older, newer = shop.events["timestamp"].to_pylist()
    assert newer == newest
    assert (newer - older).days == 10
    assert report.notes == [f"all times were moved by {days} days, so that the newest falls on {newest.date()}"]


def test_a_title_is_the_most_frequent_description_that_no_clerk_scribbled_and_of_equals_the_latest(
    tmp_path: Path,
) -> None:
    shop, _ = load(
        tmp_path,
        *(line(invoice=str(n), description="wrongly coded") for n in range(3)),
        line(invoice="5", description="RED MUG "),
        line(invoice="6", description="RED MUG LARGE", date="2011-01-01 10:00:00"),
        line(code="22423", description="check"),
        line(code="22424", description=""),
    )
    assert shop.items["title"].to_pylist() == ["Check", "22424", "Red Mug Large"]


def test_a_price_is_the_median_of_the_last_sixty_days_of_sales(tmp_path: Path) -> None:
    dates = ("2010-12-01", "2011-06-01", "2011-06-02", "2011-07-30")
    lines = (line(invoice=str(n), date=f"{day} 10:00:00", price=str(n + 1)) for n, day in enumerate(dates))
    shop, _ = load(tmp_path, *lines)
    assert shop.items["price"].to_pylist() == [3.0]


def test_a_customer_lives_where_most_lines_say_and_unspecified_is_unknown(tmp_path: Path) -> None:
    shop, _ = load(
        tmp_path,
        line(country="France"), line(country="EIRE", invoice="2"), line(country="EIRE", invoice="3"),
        line(customer="1.0", country="Unspecified"),
    )  # fmt: skip
    assert shop.users.to_pylist() == [{"user_id": "1", "country": ""}, {"user_id": "17850", "country": "EIRE"}]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line(date="12/1/2010 8:26"), "row 3, column InvoiceDate: '12/1/2010 8:26' is not a time"),
        (line(price="free"), "row 3, column UnitPrice: 'free' is not a number"),
        (line(code=""), "row 3, column StockCode: an id may not be empty"),
        ("1,2\n", "row 3: this row has 2 fields, the header 8"),
    ],
)
def test_a_file_that_is_not_in_this_format_is_refused_by_row_and_column(tmp_path: Path, bad: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        load(tmp_path, line(), bad)
    assert str(refused.value).endswith(f"retail.csv.gz: {message}")


def test_a_file_without_the_columns_or_without_a_purchase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no purchase of a known customer is left"):
        load(tmp_path, line(customer=""))
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id\nu,i\n")
    with pytest.raises(InputError, match=r"column InvoiceNo: there is no such column"):
        import_online_retail([path])


@pytest.mark.parametrize(
    ("description", "title"),
    [
        ("WHITE HANGING HEART T-LIGHT HOLDER", "White Hanging Heart T-Light Holder"),
        ("DON'T TOUCH  MY  50'S MUG.", "Don't Touch My 50's Mug"),
        ("THE KING OF 3D HEARTS, AND A TV TRAY ,", "The King of 3D Hearts, and a TV Tray"),
        ("HEN HOUSE W CHICK IN NEST", "Hen House with Chick in Nest"),
        ('LETTER "A" BLING KEY RING', 'Letter "A" Bling Key Ring'),
        ("POLYESTER FILLER PAD 40x40cm", "Polyester Filler Pad 40x40cm"),
        ("SET/3 CHARLIE+LOLA A4 BOOKS", "Set/3 Charlie+Lola A4 Books"),
        (" , ", ""),
    ],
)
def test_a_description_in_capitals_becomes_readable(description: str, title: str) -> None:
    assert gifts.readable(description) == title


@pytest.mark.parametrize("note", ["damaged", "?", "check", "wrongly coded 23343", "Amazon", "", "OK", "lost??"])
def test_a_clerks_note_is_no_description(note: str) -> None:
    assert not gifts.plausible(note)


@pytest.mark.parametrize(
    ("title", "category"),
    [
        ("Red Retrospot Mug", "Mug & Cup"),
        ("Lunch Bag Red Retrospot", "Bag"),
        ("Blue Diamante Pen in Gift Box", "Stationery"),
        ("Recipe Box with Metal Heart", "Baking"),
        ("White Hanging Heart T-Light Holder", "T-Light Holder"),
        ("Set/6 Fruit Salad T-Lights", "Candle"),
        ("Wall Art Bicycle Safety", "Wall Art"),
        ("Dusty Pink Christmas Tree 30cm", "Christmas Decoration"),
        ("Heart Filigree Dove Large", "Decoration"),
        ("Space Cadet Red", "Other"),
    ],
)
def test_a_category_is_the_last_noun_that_tells_what_a_thing_is(title: str, category: str) -> None:
    """What comes after "with" or "in" does not; a season or a shape does only where no product is named."""
    assert gifts.categories([title] * gifts.MIN_ITEMS) == [category] * gifts.MIN_ITEMS


def test_a_category_that_few_items_share_is_other() -> None:
    titles = ["Red Mug"] * gifts.MIN_ITEMS + ["Blue Magnet"] * (gifts.MIN_ITEMS - 1)
    assert set(gifts.categories(titles)) == {"Mug & Cup", "Other"}


REAL = os.environ.get("ENDCAP_ONLINE_RETAIL")


@pytest.mark.skipif(REAL is None, reason="ENDCAP_ONLINE_RETAIL does not name the real file")
def test_the_real_file_gives_the_counts_that_its_readme_states() -> None:
    """Of 541,909 lines 397,924 are known customers' purchases, before the rules on price and product."""
    shop, report = import_online_retail([Path(str(REAL))])
    validate(shop)
    dropped = list(report.dropped.values())
    assert list(report.read.values()) == [541_909]
    assert 541_909 - sum(dropped[:3]) == 397_924
    assert shop.events.num_rows == 397_924 - sum(dropped[3:])
    assert 3_600 < shop.items.num_rows < 3_665
    assert 4_300 < shop.users.num_rows <= 4_339
    categories = shop.items["category"].to_pylist()
    assert categories.count("Other") < 0.05 * len(categories)
