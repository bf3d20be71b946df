"""The UCI "Online Retail" file: every invoice line of a British gift shop from December 2010 to December 2011.

Chen, D. (2015), UCI Machine Learning Repository, doi 10.24432/C5BW33, CC BY 4.0, as CSV with the columns InvoiceNo,
StockCode, Description, Quantity, InvoiceDate (local time, `2010-12-01 08:26:00`), UnitPrice, CustomerID and Country.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from features.errors import InputError
from features.importers import gifts, values
from features.importers.reasons import LATER
from features.importers.sources import Source, read_sources
from features.progress import Progress, Report, silent
from features.shop import EVENTS, ITEMS, USERS, Shop, sorted_events

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
PRICE_DAYS = 60  # an item's price is the median of its last so many days of sales

# Goods have a code that starts with five digits, or with DCGS. POST, DOT, M, D, S, B, C2, CRUK, PADS, BANK CHARGES,
# AMAZONFEE and gift_0001_10 are what a till adds. A few services hide behind a product's code.
_GOODS = r"^(?:\d{5}|DCGS)"
_SERVICES = r"\b(?:carriage|postage|packing charge|gift voucher|high resolution image)\b"


def import_online_retail(
    files: Sequence[Path],
    progress: Progress = silent,
    shift_to: datetime | None = None,
    until: datetime | None = None,
) -> tuple[Shop, Report]:
    """The shop in `files`, and what was read and dropped. `progress` counts bytes.

    - One `purchase` for each item of an invoice of a known customer; lines of the same item merge (sum of quantities,
      mean price by quantity, first time). session_id is the invoice. Lines are dropped for the first reason that fits.
    - Stock codes are upper-cased, "17850.0" becomes "17850". A title is the item's most frequent description, a price
      the median of its last PRICE_DAYS days of sales, a category what the title tells (`gifts.categories`).
    - Every item counts as in stock: the file does not say. A customer's country is the most frequent; unspecified: ''.

    With `shift_to` (naive: UTC) all times move by the same whole number of days, so that the newest event falls on the
    last such time at or before it; `Report.notes` says by how many. Without it, lines after `until` are dropped.
    Raises InputError, naming file, row and column, for a file that is not in this format.
    """
    sources = read_sources(files, progress)
    report = Report(read={str(source.path): source.table.num_rows for source in sources})
    if not sources:
        raise InputError("no file is given")
    lines = pd.concat([_lines(source) for source in sources], ignore_index=True)
    lines = _sifted(lines, report, until if shift_to is None else None)
    if lines.empty:
        raise InputError("no purchase of a known customer is left", file=files[0])
    purchases = _merged(lines, report)
    if shift_to is not None:
        purchases["time"] += _shift(purchases["time"].max().to_pydatetime(), shift_to, report)
    shop = Shop(_events(purchases), _items(lines), _users(lines))
    report.wrote = {"events": shop.events.num_rows, "items": shop.items.num_rows, "users": shop.users.num_rows}
    return shop, report


def _lines(source: Source) -> pd.DataFrame:
    source.require(COLUMNS)
    local = values.times(source, "InvoiceDate").to_pandas().dt.tz_localize(None)
    # The shop is closed when clocks change; were it not, the second of two equal hours would be meant.
    ambiguous = np.zeros(len(local), dtype=bool)
    zoned = local.dt.tz_localize("Europe/London", ambiguous=ambiguous, nonexistent="shift_forward")
    return pd.DataFrame(
        {
            "invoice": values.ids(source, "InvoiceNo").to_pandas(),
            "item": values.ids(source, "StockCode").to_pandas().str.strip().str.upper(),
            "description": values.words(source, "Description").to_pandas().str.strip(),
            "quantity": values.numbers(source, "Quantity").to_pandas(),
            "time": zoned.dt.tz_convert("UTC").astype("datetime64[us, UTC]"),
            "price": values.numbers(source, "UnitPrice").to_pandas(),
            "customer": values.words(source, "CustomerID").to_pandas().str.replace(r"\.0$", "", regex=True),
            "country": values.words(source, "Country").to_pandas().str.strip().replace("Unspecified", ""),
        }
    )


def _sifted(lines: pd.DataFrame, report: Report, until: datetime | None) -> pd.DataFrame:
    """The lines that are purchases of goods by known customers, up to a time if one is given."""
    service = lines["description"].str.contains(_SERVICES, case=False, regex=True)
    reasons = {
        "cancelled invoice (InvoiceNo starts with C)": lines["invoice"].str.upper().str.startswith("C"),
        "no customer": lines["customer"].str.strip() == "",
        "quantity not above 0": ~(lines["quantity"] > 0),
        "price not above 0": ~(lines["price"] > 0),
        "not a product (postage, fees, vouchers, manual entries)": ~lines["item"].str.match(_GOODS) | service,
    }
    if until is not None:
        reasons[LATER] = lines["time"] > until
    kept = pd.Series(True, index=lines.index)
    for reason, drop in reasons.items():
        report.dropped[reason] = int((kept & drop).sum())
        kept &= ~drop
    return lines[kept]


def _merged(lines: pd.DataFrame, report: Report) -> pd.DataFrame:
    """One row for each (invoice, item), in the order of the file."""
    lines = lines.assign(paid=lines["price"] * lines["quantity"])
    merged = lines.groupby(["invoice", "item"], sort=False, as_index=False).agg(
        quantity=("quantity", "sum"), time=("time", "min"), paid=("paid", "sum"), customer=("customer", "first")
    )
    report.dropped["merged into another line of the same invoice and item"] = len(lines) - len(merged)
    return merged.assign(price=merged["paid"] / merged["quantity"])


def _shift(newest: datetime, shift_to: datetime, report: Report) -> timedelta:
    shift_to = shift_to.replace(tzinfo=UTC) if shift_to.tzinfo is None else shift_to
    days = (shift_to - newest).days  # whole days, towards the past
    report.notes.append(
        f"all times were moved by {days} days, so that the newest falls on {(newest + timedelta(days)).date()}"
    )
    return timedelta(days)


def _events(purchases: pd.DataFrame) -> pa.Table:
    columns = {
        "user_id": purchases["customer"],
        "item_id": purchases["item"],
        "event": "purchase",
        "timestamp": purchases["time"],
        "session_id": purchases["invoice"],
        "quantity": purchases["quantity"],
        "price": purchases["price"],
    }
    return sorted_events(pa.Table.from_pandas(pd.DataFrame(columns), schema=EVENTS, preserve_index=False))


def _items(lines: pd.DataFrame) -> pa.Table:
    """The catalogue, in order of code."""
    titles = _titles(lines)
    recent = lines["time"] > lines.groupby("item")["time"].transform("max") - pd.Timedelta(days=PRICE_DAYS)
    prices = lines[recent].groupby("item")["price"].median().round(2)
    columns = {
        "item_id": titles.index,
        "title": titles.to_numpy(),
        "category": gifts.categories(titles.tolist()),
        "price": prices.reindex(titles.index).to_numpy(),
        "in_stock": True,
    }
    return pa.Table.from_pandas(pd.DataFrame(columns), schema=ITEMS, preserve_index=False)


def _titles(lines: pd.DataFrame) -> pd.Series[str]:
    """item -> its most frequent description in the stock list's style, made readable; the code where there is none."""
    clerks = ~lines["description"].map(gifts.plausible).astype(bool)
    best = _most_frequent(lines.assign(clerks=clerks), "item", "description", avoid=["clerks"])
    titles = best.map(gifts.readable)
    return titles.where(titles != "", best.index.to_series())


def _users(lines: pd.DataFrame) -> pa.Table:
    countries = _most_frequent(lines, "customer", "country")
    frame = pd.DataFrame({"user_id": countries.index, "country": countries.to_numpy()})
    return pa.Table.from_pandas(frame, schema=USERS, preserve_index=False)


def _most_frequent(lines: pd.DataFrame, key: str, value: str, avoid: Sequence[str] = ()) -> pd.Series[str]:
    """`key` -> its most frequent `value`, of equals the latest; one that has an `avoid` flag only if all have."""
    counts = lines.groupby([*avoid, key, value], as_index=False).agg(times=("time", "size"), last=("time", "max"))
    order = [True] * (1 + len(avoid)) + [False, False]
    best = counts.sort_values([key, *avoid, "times", "last"], ascending=order, kind="stable").drop_duplicates(key)
    return best.set_index(key)[value]
