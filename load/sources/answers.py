"""From the serving log (docs/serving-log.md): each answer becomes the request that led to it, when it came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from load.errors import LoadError
from load.sources.account import Account
from load.sources.requests import JSON
from load.sources.tables import tables
from load.traffic_log import Entry

PATHS = {"recommend": "/v1/recommendations", "rank": "/v1/rank"}
FOLDERS = ("log/answers/date=*/hour=*/*.parquet", "date=*/hour=*/*.parquet")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`since` and `until`: ISO 8601, UTC unless it says otherwise, or seconds since the epoch. `until` is outside."""

    since: str | None = None
    until: str | None = None


def entries(inputs: Sequence[Path], settings: Settings, account: Account) -> Iterator[Entry]:
    """The requests of a deployment's log, of its folder of answers or of single files, in the order in which they came.

    `time` is when a request was answered; it came `took_ms` earlier. Raises LoadError for what is no serving log.
    """
    files = [str(file) for path in inputs for file in _files(path)]
    with tables() as database:
        bounds = []
        for name, text in (("since", settings.since), ("until", settings.until)):
            at = None if text is None else database.one("SELECT microseconds(?)", [text])
            if text is not None and at is None:
                raise LoadError(f"--{name} {text}: expected a time such as 2026-11-25T07:00:00Z")
            bounds.append(at)
        source = "read_parquet(?, hive_partitioning = false)"
        came = "epoch_us(time) - round(took_ms * 1000)::BIGINT"
        within = f"coalesce({came} >= ?, true) AND coalesce({came} < ?, true)"
        account.read = database.one(f"SELECT count(*) FROM {source}", [files])
        inside = database.one(f"SELECT count(*) FROM {source} WHERE {within}", [files, *bounds])
        if account.read > inside:
            account.dropped["outside --since and --until"] = account.read - inside
        rows = f"SELECT {came}, endpoint, request, recommendation_id FROM {source} WHERE {within} ORDER BY 1, 4"
        for at_us, endpoint, request, answer in database.rows(rows, [files, *bounds]):
            if at_us is None or request is None or endpoint not in PATHS:
                account.drop_bad("no time, no request or no such endpoint", f"answer {answer}")
            else:
                yield Entry(at_us, "POST", PATHS[endpoint], JSON, request)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for pattern in FOLDERS:
        if files := sorted(path.glob(pattern)):
            return files
    raise LoadError(f"{path}: there is no serving log ({FOLDERS[0]})")
