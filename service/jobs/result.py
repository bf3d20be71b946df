"""The result of a job: written a whole line at a time, read up to what is on the disk for good, as NDJSON or Arrow."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
from msgspec import Struct

from service.jobs.files import Progress

CHUNK = 1 << 18
ROWS = 512
"""Of a record batch."""
SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("user_id", pa.string()),
        ("recommendation_id", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("group", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
        ("sources", pa.list_(pa.string())),
        ("degraded", pa.list_(pa.string())),
        ("missing_item_ids", pa.list_(pa.string())),
        ("error", pa.string()),
    ]
)


class Told(Struct, frozen=True):
    """What counting needs of a line."""

    index: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """`size`: its first so many bytes will never be others. `whole`: whether there will be no more."""

    job: str
    path: Path
    size: int
    state: str
    whole: bool


def recover(path: Path) -> Progress:
    """What is done; cuts off what a killed process has left of a line. Blocks. Makes the file where there is none."""
    path.touch()
    done = failed = size = 0
    with path.open("r+b") as file:
        for line in file:
            told = None
            with suppress(msgspec.DecodeError):
                told = msgspec.json.decode(line, type=Told) if line.endswith(b"\n") else None
            if told is None or told.index != done:
                break
            done, failed, size = done + 1, failed + (told.error is not None), size + len(line)
        file.truncate(size)
    return Progress(done, failed, size)


async def part(result: Result, start: int, end: int) -> AsyncIterator[bytes]:
    """Bytes from `start` up to `end`."""
    if start >= end:  # where nothing is done yet there may be no file
        return
    with result.path.open("rb") as file:
        file.seek(start)
        while start < end:
            chunk = await asyncio.to_thread(file.read, min(CHUNK, end - start))
            if not chunk:
                return
            start += len(chunk)
            yield chunk


class Drain(io.RawIOBase):
    """What Arrow writes into it, to be taken away bit by bit."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        return len(self.parts[-1])

    def take(self) -> bytes:
        taken = b"".join(self.parts)
        self.parts.clear()
        return taken


async def as_arrow(result: Result) -> AsyncIterator[bytes]:
    """An Arrow IPC stream of SCHEMA, a few hundred lines in memory at a time."""
    drain = Drain()
    path = result.path if result.size else Path(os.devnull)
    with path.open("rb") as file, pa.ipc.new_stream(drain, SCHEMA) as writer:
        left = result.size
        while left > 0 and (lines := await asyncio.to_thread(take, file, left)):
            left -= sum(map(len, lines))
            writer.write_batch(await asyncio.to_thread(batch_of, lines))
            yield drain.take()
        writer.close()
        yield drain.take()


def take(file: BinaryIO, left: int) -> list[bytes]:
    """The next lines, of at most `left` bytes."""
    lines: list[bytes] = []
    while left > 0 and len(lines) < ROWS and (line := file.readline()):
        lines.append(line)
        left -= len(line)
    return lines


def batch_of(lines: list[bytes]) -> pa.RecordBatch:
    """A record batch of a result's lines."""
    return pa.RecordBatch.from_pylist([flat(msgspec.json.decode(line)) for line in lines], schema=SCHEMA)


def flat(line: dict[str, Any]) -> dict[str, Any]:
    """A line's row of SCHEMA."""
    row = {name: line.get(name) for name in ("index", "user_id", "error")}
    if (answer := line.get("answer")) is not None:
        model, items = answer["model"], answer["items"]
        row |= {
            "recommendation_id": answer["recommendation_id"],
            "model": model["name"],
            "version": model["version"],
            "group": model["group"],
            "item_ids": [one["item_id"] for one in items],
            "scores": [one["score"] for one in items],
            "sources": [one["source"] for one in items],
            "degraded": answer["degraded"],
            "missing_item_ids": answer.get("missing_item_ids"),
        }
    return row
