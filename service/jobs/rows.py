"""Rows of a job's input: each a request, with what the job says of all of them filled in, checked before it is kept."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from service.errors import FieldError, InvalidRequest, MalformedBody, ServiceError
from service.http.strict import StrictDecoder
from service.jobs.disk import on_disk
from service.jobs.pace import Pace
from service.jobs.wire import Kind
from service.placements import Placements
from service.wire import RankRequest, RecommendRequest

REQUESTS: Mapping[Kind, type[RecommendRequest] | type[RankRequest]] = {
    "recommendations": RecommendRequest,
    "rank": RankRequest,
}
SLICE_S = 0.0005
"""Of the event loop's time that reading rows takes between two rests."""


class Rows:
    """Checks rows. `fields` are those that a row leaves out; `most_bytes` is of one row."""

    def __init__(self, kind: Kind, fields: Mapping[str, Any], placements: Placements, most_bytes: int) -> None:
        self.fields, self.placements, self.most_bytes = fields, placements, most_bytes
        self.decoder = StrictDecoder(REQUESTS[kind])

    def check(self, fields: Mapping[str, Any]) -> None:
        """Raises InvalidRequest for fields of the job that no row could make right."""
        if unknown := [one for one in fields if one not in self.decoder.fields]:
            known = ", ".join(self.decoder.fields)
            raise InvalidRequest(
                *(FieldError(f"request.{one[:100]}", f"Unknown field; known: {known}") for one in unknown)
            )

    def whole(self, line: bytes, place: int) -> bytes:
        """The row as a whole request, in one line. Raises MalformedBody or InvalidRequest, which say the place."""
        where = f"rows[{place}]"
        if len(line) > self.most_bytes:
            raise InvalidRequest(FieldError(where, f"has more than {self.most_bytes:,} bytes"))
        try:
            given = self.decoder.loose(line)
            if not isinstance(given, dict):
                raise InvalidRequest(FieldError("", f"Expected an object, got {type(given).__name__}"))
            if self.fields:
                raw = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
                line = msgspec.json.encode({**self.fields, **raw})
            request: RecommendRequest | RankRequest = self.decoder.decode(line)
            placement = self.placements.get(request.placement)
            if placement.needs_item and isinstance(request, RecommendRequest) and request.item_id is None:
                raise InvalidRequest(FieldError("item_id", f"placement {request.placement!r} needs the item in view"))
        except InvalidRequest as error:
            found = (FieldError(f"{where}.{one.path}".removesuffix("."), one.message) for one in error.errors)
            raise InvalidRequest(*found) from error
        except ServiceError as error:
            raise type(error)(f"{where}: {error}") from error
        return msgspec.json.format(line, indent=-1)


async def keep(lines: AsyncIterator[bytes], rows: Rows, path: Path, pace: Pace, most_bytes: int) -> int:
    """Writes the rows into `path`, whole, and to the disk. Returns how many there are. Raises what `Rows.whole` raises,
    and InvalidRequest where there is none or they are too large."""
    count, size = 0, 0
    ready: list[bytes] = []
    began = time.perf_counter()
    with path.open("wb") as file:
        async for line in lines:
            whole = rows.whole(line, count)
            ready.append(whole + b"\n")
            count, size = count + 1, size + len(whole) + 1
            if size > most_bytes:
                raise InvalidRequest(FieldError(f"rows[{count - 1}]", f"all rows have more than {most_bytes:,} bytes"))
            if (spent := time.perf_counter() - began) > SLICE_S:
                await on_disk(file.write, b"".join(ready))
                ready.clear()
                await pace.rest(spent)
                began = time.perf_counter()
        if not count:
            raise InvalidRequest(FieldError("", "there is no row"))
        await on_disk(settle, file, b"".join(ready))
    return count


def settle(file: BinaryIO, rest: bytes) -> None:
    """Brings what was written to it, and the rest, to the disk."""
    file.write(rest)
    file.flush()
    os.fsync(file.fileno())


async def split(chunks: AsyncIterator[bytes], most_bytes: int) -> AsyncIterator[bytes]:
    """The lines of a body as it comes; blank ones are passed over. Of one that is too long, what shows it."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > most_bytes:
            yield rest
            raise MalformedBody("a line is too long")
    if rest.strip():
        yield rest
