"""The UCI "Online Retail" file (Chen 2015, doi 10.24432/C5BW33): each invoice is a visit of a known customer.

It has no views, so a visit is one recommendation, and then what was bought as one body of events.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from load.errors import LoadError
from load.sources.account import Account
from load.sources.requests import events, recommendation
from load.sources.tables import Tables
from load.traffic_log import Entry

if TYPE_CHECKING:
    from load.sources.events import Settings

COLUMNS = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")
SPREAD_S = 60.0
"""The file's times are whole minutes."""

PURCHASE_US = 1_000_000
"""From a visit's request to its purchases. The file does not say how long people look; one second keeps the order."""

BAD = ("no invoice", "no time that can be read")
# In the words and the order of features/importers/online_retail.py, which reads the same file for training.
REASONS = """
    CASE WHEN coalesce(invoice, '') = '' THEN 'no invoice'
         WHEN upper(invoice) LIKE 'C%' THEN 'cancelled invoice'
         WHEN coalesce(user, '') = '' THEN 'no customer'
         WHEN NOT coalesce(quantity > 0, false) THEN 'quantity not above 0'
         WHEN NOT coalesce(price > 0, false) THEN 'price not above 0'
         WHEN NOT regexp_matches(coalesce(item, ''), '^([0-9]{5}|DCGS)') THEN 'not a product (postage, fees, vouchers)'
         WHEN coalesce(at_us, -1) < 0 THEN 'no time that can be read' END
"""


def visits(
    database: Tables, inputs: Sequence[Path], settings: Settings, account: Account, spread_us: int
) -> Iterator[tuple[int, Entry]]:
    """The requests of each visit, with the minute of its invoice. Times are London's. Raises LoadError."""
    database.run(
        "CREATE TABLE lines (row BIGINT, invoice VARCHAR, user VARCHAR, item VARCHAR, quantity DOUBLE, price DOUBLE,"
        " at_us BIGINT, reason VARCHAR)"
    )
    for path in inputs:
        found = database.columns(path)
        for name in COLUMNS:
            if name not in found:
                raise LoadError(f"{path}: there is no column {name}; there are {', '.join(found)}")
        database.take(
            path,
            "trim(InvoiceNo), regexp_replace(trim(CustomerID), '\\.0$', ''), upper(trim(StockCode)),"
            " try_cast(Quantity AS DOUBLE), try_cast(UnitPrice AS DOUBLE),"
            " epoch_us(timezone('Europe/London', try_cast(InvoiceDate AS TIMESTAMP))), NULL",
        )
    database.run(f"UPDATE lines SET reason = {REASONS}")
    database.drop_by_reason(account, BAD)
    database.keep_day(settings.day, account, "DISTINCT invoice")
    rng = random.Random(settings.seed)
    database.run(
        "CREATE TABLE bought AS SELECT invoice, user, item, min(at_us) AS at_us, min(row) AS row,"
        " sum(quantity * price) AS value FROM lines WHERE reason IS NULL GROUP BY ALL"
    )
    database.run(
        "CREATE TABLE visits AS SELECT invoice, user, min(at_us) AS came, min(row) AS first FROM bought GROUP BY ALL"
    )
    rows = database.rows(
        "SELECT invoice, user, came, item, value FROM bought JOIN visits USING (invoice, user)"
        " ORDER BY came, first, row"
    )
    for (invoice, user, came), lines in groupby(rows, key=itemgetter(0, 1, 2)):
        at = came + int(rng.random() * spread_us)
        yield came, recommendation(at, user, settings.placement, settings.count)
        sold = [_sold(f"{settings.seed}-{invoice}-{item}", user, item, invoice, value) for *_, item, value in lines]
        for entry in events(at + PURCHASE_US, sold):
            yield came, entry


def _sold(event: str, user: str, item: str, invoice: str, value: float) -> dict[str, Any]:
    return {
        "event_id": event,
        "user_id": user,
        "item_id": item,
        "type": "purchase",
        "session_id": invoice,
        "value": round(value, 2),
    }
