"""What `GET /v1/freshness` answers, as JSON, CSV and Arrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from service.accept import ARROW, JSON, chosen

CSV = "text/csv"
TYPES = (JSON, CSV, ARROW)


class Ages(Struct, frozen=True):
    """Quantiles of ages, in seconds."""

    p50: float
    p95: float
    p99: float


class Served(Struct, frozen=True):
    """A view behind the answers of a window. Shares are of `requests`; `within_slo` of those whose row had an age."""

    requests: int
    missing: float
    outside_max_age: float
    unreadable: float
    not_read: float
    within_slo: float | None
    age_s: Ages | None


class Group(Served, frozen=True):
    """One placement's, model version's, hour's or minute's part of a window."""

    group: str


class StoredSample(Struct, frozen=True):
    """A view in the store, over a sample of entities. Shares are of `entities`; `within_slo` of those with a row."""

    at: datetime
    entities: int
    missing: float
    outside_max_age: float
    within_slo: float | None
    age_s: Ages | None


class ViewFreshnessReport(Struct, frozen=True):
    """One feature view: what Feast says of it, what is in the store, what was served. Spans are in seconds."""

    view: str
    entity: str
    slo_s: float | None
    max_age_s: float | None
    last_materialized: datetime | None
    newest_event: datetime | None
    sample: StoredSample | None
    served: dict[str, Served]


class FreshnessReport(Struct, frozen=True):
    """All feature views. `sample_error` says why the store could not be looked at, if it could not."""

    project: str
    at: datetime
    sample_error: str | None
    views: list[ViewFreshnessReport]


class ViewReport(Struct, frozen=True):
    """One view as served in a window, in groups."""

    view: str
    window_s: float
    by: str
    groups: list[Group]


FIGURES = pa.schema(
    {
        "requests": pa.int64(), "missing": pa.float64(), "outside_max_age": pa.float64(), "unreadable": pa.float64(),
        "not_read": pa.float64(), "within_slo": pa.float64(), "age_p50_s": pa.float64(), "age_p95_s": pa.float64(),
        "age_p99_s": pa.float64(),
    }
)  # fmt: skip
REPORT = pa.schema(
    [
        ("view", pa.string()), ("entity", pa.string()), ("slo_s", pa.float64()), ("max_age_s", pa.float64()),
        ("last_materialized", pa.timestamp("us", "UTC")), ("newest_event", pa.timestamp("us", "UTC")),
        ("scope", pa.string()), *FIGURES,
    ]
)  # fmt: skip
ONE_VIEW = pa.schema([("view", pa.string()), ("by", pa.string()), ("group", pa.string()), *FIGURES])


def encode_as(accept: str | None, report: FreshnessReport | ViewReport) -> tuple[bytes, str]:
    """The report and its content type, as `Accept` would have it. Raises NotAcceptable."""
    kind = chosen(accept, TYPES)
    if kind == JSON:
        return msgspec.json.encode(report), kind
    schema = REPORT if isinstance(report, FreshnessReport) else ONE_VIEW
    rows = list(rows_of(report) if isinstance(report, FreshnessReport) else groups_of(report))
    if kind == CSV:
        text = io.StringIO()
        lines = csv.writer(text)
        lines.writerow(schema.names)
        lines.writerows([plain(row[name]) for name in schema.names] for row in rows)
        return text.getvalue().encode(), kind
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_table(pa.Table.from_pylist(rows, schema))
    return sink.getvalue(), kind


def rows_of(report: FreshnessReport) -> Iterator[dict[str, Any]]:
    """A row for each view and scope: the store, and each window as served."""
    for view in report.views:
        told = {name: getattr(view, name) for name in REPORT.names[:6]}
        if view.sample is not None:
            yield {**told, "scope": "store", **figures(view.sample), "requests": None}
        for window, served in view.served.items():
            yield {**told, "scope": window, **figures(served)}


def groups_of(report: ViewReport) -> Iterator[dict[str, Any]]:
    for one in report.groups:
        yield {"view": report.view, "by": report.by, "group": one.group, **figures(one)}


def figures(one: Served | StoredSample) -> dict[str, Any]:
    found = {name: getattr(one, name, None) for name in FIGURES.names[:6]}
    ages = {f"age_{q}_s": getattr(one.age_s, q, None) for q in ("p50", "p95", "p99")}
    return {**found, **ages}


def plain(value: Any) -> Any:
    return "" if value is None else value.isoformat() if isinstance(value, datetime) else value
