"""Answers as Arrow, and Parquet files of them that a reader sees whole or not at all.

A reader's pattern is `date=*/hour=*/*.parquet`. What is half made never matches it: a file in the making ends in
`.partial` (to DuckDB's globs a leading dot is a letter like any other), the name of a directory starts with `.hour`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from service.wire import RecommendRequest

if TYPE_CHECKING:
    from service.answered import Answered

SCHEMA = pa.schema(
    {
        "recommendation_id": pa.string(),
        "time": pa.timestamp("us", "UTC"),
        "endpoint": pa.string(),
        "user_id": pa.string(),
        "session_item_ids": pa.list_(pa.string()),
        "item_id": pa.string(),
        "placement": pa.string(),
        "count": pa.int32(),
        "model": pa.string(),
        "version": pa.string(),
        "model_group": pa.string(),
        "request": pa.string(),
        "features": pa.string(),
        "views": pa.list_(pa.struct({"view": pa.string(), "status": pa.string(), "age_s": pa.float64()})),
        "sources": pa.list_(pa.struct({"source": pa.string(), "quota": pa.int32()})),
        "items": pa.list_(pa.struct({"item_id": pa.string(), "score": pa.float32(), "source": pa.string()})),
        "stages": pa.list_(pa.struct({"stage": pa.string(), "seconds": pa.float64()})),
        "degraded": pa.list_(pa.string()),
        "took_ms": pa.float64(),
        "batch_size": pa.int32(),
        "settings": pa.string(),
    }
)

PLAIN = frozenset({"recommendation_id", "endpoint", "model", "version", "model_group", "took_ms", "batch_size"})
"""Columns that are written as `Answered` has them."""

AT_ONCE = 64
"""Answers in one Arrow batch: a column's conversion keeps the interpreter's lock, and the event loop waits for it."""

ATTEMPTS = 5
"""Times that a file is written anew because its hour is compacted meanwhile; hours are so only after their end."""

GROUP = 10_000
"""Rows in one row group of a compacted file: as much as compaction holds in memory at a time."""

MERGED = b"endcap.merged"
"""In a compacted file's footer: a JSON list of the names of the files that it replaces."""


def batches_of(answers: Sequence[Answered]) -> tuple[list[pa.RecordBatch], list[str]]:
    """The answers as SCHEMA, and a complaint about each that cannot be written (it is left out)."""
    batches, complaints = [], []
    for start in range(0, len(answers), AT_ONCE):
        rows, requests, features = [], [], []
        for one in answers[start : start + AT_ONCE]:
            try:
                request, values = msgspec.json.encode(one.request), orjson.dumps(dict(one.values))
            except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
                complaints.append(f"answer {one.recommendation_id}: {error}")
                continue
            rows.append(one)
            requests.append(request)
            features.append(values)
        batches.append(batch(rows, requests, features))
    return batches, complaints


def batch(rows: Sequence[Answered], requests: list[bytes], features: list[bytes]) -> pa.RecordBatch:
    """Column by column, and no object made for a row or for a part of one: an order of magnitude cheaper than a dict a
    row, and a collection of garbage would look at each."""
    asked = [one.request for one in rows]
    placements = {id(one.settings): one.settings for one in rows}  # a few, each of many answers
    said = {key: None if one is None else msgspec.json.encode(one) for key, one in placements.items()}
    views = [view for one in rows for view in one.views.values()]
    items = [item for one in rows for item in one.items]
    columns = {
        **{name: [getattr(one, name) for one in rows] for name in SCHEMA.names if name in PLAIN},
        "time": [round(one.at * 1e6) for one in rows],
        "user_id": [one.user_id for one in asked],
        "session_item_ids": lists("session_item_ids", [one.session.item_ids if one.session else () for one in asked]),
        "item_id": [one.item_id if isinstance(one, RecommendRequest) else None for one in asked],
        "placement": [one.placement for one in asked],
        "count": [one.count if isinstance(one, RecommendRequest) else len(set(one.item_ids)) for one in asked],
        "request": requests,
        "features": features,
        "views": structs(
            "views", [len(one.views) for one in rows],
            [name for one in rows for name in one.views], [view.status for view in views],
            [view.age_s for view in views],
        ),
        "sources": structs(
            "sources", [len(one.sources) for one in rows],
            [name for one in rows for name in one.sources], [quota for one in rows for quota in one.sources.values()],
        ),
        "items": structs(
            "items", [len(one.items) for one in rows],
            [item.item_id for item in items], [item.score for item in items], [item.source for item in items],
        ),
        "stages": structs(
            "stages", [len(one.stages) for one in rows],
            [name for one in rows for name in one.stages], [took for one in rows for took in one.stages.values()],
        ),
        "degraded": lists("degraded", [one.degraded for one in rows]),
        "settings": [said[id(one.settings)] for one in rows],
    }  # fmt: skip
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field, column in zip(SCHEMA, (columns[name] for name in SCHEMA.names), strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def lists(name: str, rows: Sequence[Sequence[str]]) -> pa.Array:
    """One list of strings a row."""
    kind = SCHEMA.field(name).type
    values = pa.array([one for row in rows for one in row], kind.value_type)
    return pa.ListArray.from_arrays(offsets([len(row) for row in rows]), values, type=kind)


def structs(name: str, counts: Sequence[int], *columns: Sequence[Any]) -> pa.Array:
    """One list of structs a row, so many in each, from the columns of all of them together."""
    kind = SCHEMA.field(name).type
    fields = list(kind.value_type)
    values = [pa.array(column, field.type) for column, field in zip(columns, fields, strict=True)]
    whole = pa.StructArray.from_arrays(values, fields=fields)
    return pa.ListArray.from_arrays(offsets(counts), whole, type=kind)


def offsets(counts: Sequence[int]) -> pa.Array:
    return pa.array(accumulate(counts, initial=0), pa.int32())


def write(rows: pa.Table, folder: Path, name: str) -> None:
    """Writes `folder/name`, whole or not at all. Raises OSError or pa.ArrowException, and leaves nothing behind."""
    beside = folder / f".{name}.partial"
    for attempt in range(ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            pq.write_table(rows, beside, compression="zstd", use_dictionary=False)
            sync(beside)
            beside.rename(folder / name)
            return
        except FileNotFoundError:  # another process compacted this hour meanwhile: the folder is a new one
            if attempt == ATTEMPTS - 1:
                raise
        finally:
            beside.unlink(missing_ok=True)


def compact(folder: Path) -> Iterator[None]:
    """Makes one file of an hour's many, in short steps. Raises OSError (also where directories cannot be exchanged,
    errno in NO_EXCHANGE) or pa.ArrowException; the hour is then as it was.

    The whole file is made in a directory of its own, which then changes names with the hour's in one system call: at no
    moment, and after no crash, does a reader find a row twice or not at all. To move the file into the hour and remove
    the others, in either order, has such a moment. The price is that the system must offer the exchange (Linux does).
    """
    parts = sorted(folder.glob("*.parquet"))
    if len(parts) < 2:
        return
    token = secrets.token_hex(4)
    staged = folder.with_name(f".{folder.name}.{token}")
    staged.mkdir()
    try:
        yield from merge(parts, staged / f"hour-{token}.parquet")
        exchange(staged, folder)
    finally:
        settle(staged)


def merge(parts: Sequence[Path], whole: Path) -> Iterator[None]:
    with pq.ParquetWriter(whole, SCHEMA, compression="zstd") as writer:
        waiting: list[pa.Table] = []
        for part in parts:
            with pq.ParquetFile(part) as file:
                for group in range(file.num_row_groups):
                    waiting.append(file.read_row_group(group, use_threads=False))
                    if sum(one.num_rows for one in waiting) >= GROUP:
                        writer.write_table(as_now(waiting))
                        waiting = []
                    yield
        if waiting:
            writer.write_table(as_now(waiting))
        writer.add_key_value_metadata({MERGED: orjson.dumps([part.name for part in parts])})
    sync(whole)
    sync(whole.parent)


def as_now(parts: Sequence[pa.Table]) -> pa.Table:
    """Them together as SCHEMA has it: files that an older release wrote lack its newer columns."""
    return pa.concat_tables([SCHEMA.empty_table(), *parts], promote_options="default").select(SCHEMA.names)


def settle(staged: Path) -> None:
    """Ends a compaction, this one or one that a crash cut short: the old files go, and any that came to the hour after
    they were listed goes back to it. Where the exchange had not happened, what was made of the new file goes."""
    folder = staged.with_name(staged.stem.removeprefix("."))
    whole = folder / f"hour{staged.suffix.replace('.', '-')}.parquet"
    if not whole.exists():
        shutil.rmtree(staged)
        return
    sync(folder.parent)
    merged = orjson.loads(pq.read_metadata(whole).metadata[MERGED])
    while True:
        for path in staged.iterdir():
            if path.suffix == ".parquet" and path.name not in merged:
                path.rename(folder / path.name)
            else:
                path.unlink(missing_ok=True)
        try:
            staged.rmdir()
            return
        except OSError as error:  # a writer that had found the old directory before the exchange was quicker
            if error.errno != errno.ENOTEMPTY:
                raise


NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV})
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def exchange(one: Path, other: Path) -> None:
    """Each directory gets the other's name, in one step. Raises OSError."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, "this system cannot exchange two directories")
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))


def sync(path: Path) -> None:
    """To the disk itself, so that a power cut cannot keep a name and lose what it stands for."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
