"""How fresh the feature views are in the store: what Feast says of each, and a sample of what Redis holds."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import FeaturesError
from features.keys import Keys
from features.layout import decode_timestamp, key_maker, timestamp_field
from features.pipeline import Pipeline, encode

SLO_TAG = "freshness_slo"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
SCAN_COUNT, SCAN_CALLS = 500, 40
CHUNK = 20
"""Entities read at a time: the event loop that answers shoppers must not be held for a millisecond."""


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """One feature view: its entity, its SLO and max age in seconds (None: none), when Feast last materialized it and
    the newest event of its batch source (seconds since the epoch, None where unknown)."""

    view: str
    entity: str
    join_key: str
    slo_s: float | None
    max_age_s: float | None
    last_materialized: float | None = None
    newest_batch: float | None = None


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sample of a view's entities showed at `at`: shares of the entities, and quantiles of the rows' ages in
    seconds (p50, p95, p99; None where there is no row)."""

    at: float
    entities: int
    missing: float
    outside_max_age: float
    within_slo: float | None
    age_s: tuple[float, float, float] | None


def span(text: str) -> float | None:
    """`90s`, `5m`, `26h` or `7d` in seconds; None for anything else."""
    match = SPAN.fullmatch(text)
    return float(match[1]) * UNITS[match[2]] if match else None


def view_specs(store: Any) -> list[ViewSpec]:
    """The feature views with one entity of a `feast.FeatureStore`. Raises FeaturesError for a tag that is no span."""
    found = []
    for view in sorted(store.list_feature_views(), key=lambda one: str(one.name)):
        if len(view.entities) != 1:
            continue
        text = view.tags.get(SLO_TAG)
        slo_s = None if text is None else span(text)
        if text is not None and not slo_s:
            raise FeaturesError(f"feature view {view.name}: tag {SLO_TAG} is {text!r}, not a span such as 90s, 5m, 26h")
        ends = [end.timestamp() for _, end in view.materialization_intervals]
        found.append(
            ViewSpec(
                str(view.name), str(view.entities[0]), store.get_entity(view.entities[0]).join_key, slo_s,
                view.ttl.total_seconds() if view.ttl else None, max(ends, default=None), newest_row(view.batch_source),
            )
        )  # fmt: skip
    return found


def newest_row(source: Any) -> float | None:
    """The newest event time of a Parquet source, from its footer; None where that does not say."""
    path = Path(str(getattr(source, "path", "")))
    if not path.is_file():
        return None
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException):  # half written, or none at all
        return None
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    if source.timestamp_field not in names:
        return None
    column = names.index(source.timestamp_field)
    every = [metadata.row_group(group).column(column).statistics for group in range(metadata.num_row_groups)]
    newest = [one.max for one in every if one is not None and one.has_min_max]
    # A time without a zone is UTC, as Feast has it; Python would take it for local time.
    times = [one if one.tzinfo else one.replace(tzinfo=UTC) for one in newest if isinstance(one, datetime)]
    return max((one.timestamp() for one in times), default=None)


class Sampler:
    """Looks at some `sample` entities of each kind at a time, and goes on from there the next time.

    Each look asks for a bounded part of the keys, in small steps, so that no reader waits for it.
    """

    def __init__(
        self, pipeline: Pipeline, project: str, specs: Sequence[ViewSpec], *, sample: int = 500,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.pipeline, self.project, self.sample, self.now = pipeline, project, sample, now
        self.newest_key = Keys(project).newest
        self.cursors: dict[str, bytes] = {}
        self.newest: dict[str, float | None] = {}
        self.take_up(specs)

    def take_up(self, specs: Sequence[ViewSpec]) -> None:
        """Samples these views from now on."""
        self.specs = specs
        self.newest = {one.view: self.newest.get(one.view) for one in specs}
        for one in specs:
            # A file that was never loaded says nothing of the store.
            if one.newest_batch is not None and one.last_materialized is not None:
                self.saw(one.view, [min(one.newest_batch, one.last_materialized)])

    async def look(self) -> dict[str, Sampled]:
        """A sample of each view that has any entity. Raises FeatureStoreError."""
        found: dict[str, Sampled] = {}
        for join_key in dict.fromkeys(one.join_key for one in self.specs):
            specs = [one for one in self.specs if one.join_key == join_key]
            keys = await self.keys(join_key)
            rows = await self.stamps(keys, [timestamp_field(one.view) for one in specs])
            for place, one in enumerate(specs):
                stamps = [row[place] for row in rows]
                self.saw(one.view, (stamp for stamp in stamps if stamp is not None))
                if rows:
                    found[one.view] = judge(one, stamps, self.now())
        pairs = await self.pipeline.execute(encode(b"ZRANGE", self.newest_key, b"0", b"-1", b"WITHSCORES"))
        views = {view.encode(): view for view in self.newest}
        for name, score in zip(pairs[::2], pairs[1::2], strict=True):
            if name in views:
                self.saw(views[name], [float(score) / 1e6])
        return found

    def saw(self, view: str, stamps: Iterable[float]) -> None:
        known = self.newest[view]
        self.newest[view] = max((*stamps, *(() if known is None else (known,))), default=None)

    async def keys(self, join_key: str) -> list[bytes]:
        """Keys of entities, from where the last look ended and, if that is near the end, on from the beginning."""
        empty, tail = key_maker(self.project, join_key)(""), self.project.encode()
        head = empty[: len(empty) - len(tail) - 4]
        pattern = b"".join(b"\\" + bytes([c]) if c in b"\\*?[]" else bytes([c]) for c in head) + b"*"
        found: dict[bytes, None] = {}
        cursor = self.cursors.get(join_key, b"0")
        from_start = cursor == b"0"
        for _ in range(SCAN_CALLS):
            command = encode(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % SCAN_COUNT)
            cursor, some = await self.pipeline.execute(command)
            found.update(dict.fromkeys(key for key in some if is_entity(key, head, tail)))
            if len(found) >= self.sample or (cursor == b"0" and from_start):
                break
            from_start = from_start or cursor == b"0"
        self.cursors[join_key] = cursor
        return list(found)

    async def stamps(self, keys: Sequence[bytes], fields: Sequence[bytes]) -> list[list[float | None]]:
        """For each key the event times of the views, None where there is none that can be read."""
        found: list[list[float | None]] = []
        for start in range(0, len(keys), CHUNK):
            replies = [self.pipeline.execute(encode(b"HMGET", key, *fields)) for key in keys[start : start + CHUNK]]
            # Gathered, because a lost connection fails all of them, and each must be heard.
            found += [[event_time(one) for one in reply] for reply in await asyncio.gather(*replies)]
        return found


def is_entity(key: bytes, head: bytes, tail: bytes) -> bool:
    """Whether a key that begins with `head` is of the project `tail`. Its id must be as long as it says: the keys of a
    project `myshop` end as those of `shop` do.
    """
    size = int.from_bytes(key[len(head) : len(head) + 4], "little")
    return key.endswith(tail) and len(key) == len(head) + 4 + size + len(tail)


def event_time(raw: bytes | None) -> float | None:
    try:
        return None if raw is None else decode_timestamp(raw)
    except ValueError:
        return None


def judge(spec: ViewSpec, stamps: Sequence[float | None], now: float) -> Sampled:
    """What these event times of a view's entities say of it."""
    ages = np.array([max(0.0, now - one) for one in stamps if one is not None])
    over = 0 if spec.max_age_s is None else int((ages > spec.max_age_s).sum())
    within = None if spec.slo_s is None or not len(ages) else float((ages <= spec.slo_s).mean())
    p50, p95, p99 = np.quantile(ages, (0.5, 0.95, 0.99)).tolist() if len(ages) else (0.0, 0.0, 0.0)
    size = len(stamps)
    return Sampled(now, size, 1 - len(ages) / size, over / size, within, (p50, p95, p99) if len(ages) else None)
