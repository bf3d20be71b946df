"""One answer out of the serving log, by its id: one hour's folder, and of that the one group of rows that may have it.

It is read by pyarrow, which a serving process has loaded, in a thread. What is read is little: ids sort by time, so the
statistics of a file say whether it can hold an id (docs/time-travel.md has what it costs).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.user import ViewState
from service.answer_id import time_of
from service.answer_log import DAY_S, HOUR_S, AnswerLog
from service.errors import DeadlineExceeded, LogUnreadable, UnknownAnswer
from service.lean import give_back
from service.placements import SOURCE_NAMES, Placement
from service.router import DEFAULT
from service.wire import Item, RankRequest, RecommendRequest

ID = "recommendation_id"
COLUMNS = (
    "time", "endpoint", "model", "version", "model_group", "request", "features", "views", "sources", "items", "stages",
    "degraded", "batch_size", "settings",
)  # fmt: skip
ROWS = 256
"""Rows that are decoded at a time, on the way to the one that is wanted."""
ATTEMPTS = 3
"""A file may be compacted away between its listing and its reading."""
AHEAD_S = 60.0
"""How far our clock may be behind that of the process that answered."""
SPARE_S = 2.0
"""What a writer may take beyond the log's `flush_s`."""
POLL_S = 0.5

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Logged:
    """An answer as the log has it. `at` is in seconds since the epoch; `settings` are those of its placement, None
    where the log of that time does not say."""

    recommendation_id: str
    at: float
    request: RecommendRequest | RankRequest
    model: str
    version: str
    model_group: str
    values: Mapping[str, Any]
    views: Mapping[str, ViewState]
    items: list[Item]
    sources: Mapping[str, int]
    degraded: list[str]
    stages: frozenset[str]
    batch_size: int
    settings: Placement | None


class Lookup:
    """Finds answers in `log`, also those that wait to be written; None where there is no log."""

    def __init__(
        self, log: AnswerLog | None, *, timeout_s: float = 10.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.log, self.timeout_s, self.clock = log, timeout_s, clock
        self.busy = asyncio.Lock()

    async def find(self, recommendation_id: str) -> Logged:
        """The answer of that id. One that may still wait in another process to be written is waited for.

        Raises InvalidRequest, UnknownAnswer, LogUnreadable or DeadlineExceeded.
        """
        at = time_of(recommendation_id)
        if self.log is None:
            raise UnknownAnswer("the serving log is off (log.enabled = false in endcap.toml): no answer is kept")
        oldest = self.clock() - self.log.keep_days * DAY_S - HOUR_S
        if not oldest <= at <= self.clock() + AHEAD_S:
            raise UnknownAnswer(
                f"{recommendation_id} is not of the last {self.log.keep_days:g} days (log.keep_days): it is older, or "
                "no id of this service, or of a release whose ids did not say when"
            )
        written_by = at + self.log.flush_s + SPARE_S
        while (row := await self._read(self.log, recommendation_id, at, flush=self.clock() < written_by)) is None:
            if self.clock() >= written_by:
                said = f"the log's hour of {recommendation_id} does not have it: no answer had that id, or it was lost"
                raise UnknownAnswer(f"{said} (docs/serving-log.md)")
            await asyncio.sleep(POLL_S)
        try:
            return logged(recommendation_id, row)
        except (msgspec.MsgspecError, orjson.JSONDecodeError, TypeError, KeyError) as error:
            raise LogUnreadable(f"the row of {recommendation_id} cannot be used: {error}") from error

    async def _read(self, log: AnswerLog, recommendation_id: str, at: float, *, flush: bool) -> Row | None:
        """One at a time, and in a thread, which goes on when its caller has left: the next one waits for it."""

        def read() -> Row | None:
            if flush:
                log.flush()
            try:
                return row_of(log.folder(int(at // HOUR_S)), recommendation_id, at)
            finally:  # what decoding took, malloc would keep for this thread
                give_back()

        def ended(reading: asyncio.Task[Row | None]) -> None:
            self.busy.release()
            if not reading.cancelled():
                reading.exception()  # seen, also where nobody waits for it any more

        try:
            async with asyncio.timeout(self.timeout_s):
                await self.busy.acquire()
                reading = asyncio.create_task(asyncio.to_thread(read))
                reading.add_done_callback(ended)
                return await asyncio.shield(reading)
        except TimeoutError as error:
            raise DeadlineExceeded(f"the serving log was not read in {self.timeout_s:g} s") from error


def row_of(folder: Path, recommendation_id: str, at: float) -> Row | None:
    """The row of an answer of `at` (seconds since the epoch) in its hour's folder; None where it is not there. Blocks.

    Raises LogUnreadable where it is not found and a file could not be read.
    """
    for _ in range(ATTEMPTS):
        gone, unread = False, ""
        try:
            with os.scandir(
                folder
            ) as there:  # names only: a thousand paths hold the interpreter's lock for milliseconds
                parts = [one.name for one in there if one.name.endswith(".parquet")]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LogUnreadable(f"the serving log could not be read: {error}") from error
        for name in sorted(parts, key=lambda name: (before(name, at), name)):
            try:
                if (row := within(folder / name, recommendation_id)) is not None:
                    return row
            except FileNotFoundError:
                gone = True
            except (OSError, pa.ArrowException) as error:
                unread = unread or f"{folder / name}: {' '.join(str(error).split())[:200]}"
        if unread:
            raise LogUnreadable(f"the serving log could not be read: {unread}")
        if not gone:
            return None
    raise LogUnreadable(f"the serving log could not be read: {folder} changes all the time")


def before(name: str, at: float) -> bool:
    """Whether a file was written before the answer was made, by its name: such are looked into last."""
    written = name.partition("-")[0]
    return written.isdecimal() and int(written) < at * 1e9


def within(path: Path, recommendation_id: str) -> Row | None:
    """Raises OSError or pa.ArrowException."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            found = file.metadata.row_group(group).column(0).statistics
            if found is not None and found.has_min_max and not found.min <= recommendation_id <= found.max:
                continue
            ids = file.read_row_group(group, [ID], use_threads=False)[ID]
            place = pc.index(ids, pa.scalar(recommendation_id)).as_py()
            if place >= 0:
                return row_at(file, group, place)
    return None


def row_at(file: pq.ParquetFile, group: int, place: int) -> Row:
    there = [name for name in COLUMNS if name in file.schema_arrow.names]
    for rows in file.iter_batches(ROWS, row_groups=[group], columns=there, use_threads=False):
        if place < len(rows):
            row: Row = rows.slice(place, 1).to_pylist()[0]
            return row
        place -= len(rows)
    raise pa.ArrowInvalid("a group of rows ends before it should")


def logged(recommendation_id: str, row: Row) -> Logged:
    """Raises MsgspecError, JSONDecodeError, TypeError or KeyError where the row is not as our log writes it."""
    kind = {"recommend": RecommendRequest, "rank": RankRequest}[row["endpoint"]]
    return Logged(
        recommendation_id,
        row["time"].timestamp(),
        msgspec.json.decode(row["request"], type=kind),
        row["model"],
        row["version"],
        row.get("model_group") or DEFAULT,
        orjson.loads(row["features"]),
        {one["view"]: ViewState(one["status"], one["age_s"]) for one in row["views"]},
        [Item(one["item_id"], one["score"], one["source"]) for one in row["items"]],
        {one["source"]: one["quota"] for one in row["sources"]},
        row["degraded"],
        frozenset(one["stage"] for one in row["stages"]),
        row["batch_size"],
        settings_of(row.get("settings")),
    )


def settings_of(text: str | None) -> Placement | None:
    """None where the log does not say, or says what another release understands."""
    try:
        found = None if text is None else msgspec.json.decode(text, type=Placement)
    except msgspec.MsgspecError:
        return None
    return found if found is not None and set(found.sources) <= set(SOURCE_NAMES) else None
