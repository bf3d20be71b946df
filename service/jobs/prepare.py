"""Makes the input of a job whose rows are in Parquet or in the shop's users: in the background, as they may be many."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
from msgspec.structs import replace

from service.errors import FieldError, InvalidRequest
from service.jobs.allowed import allowed_file, allowed_url, is_url
from service.jobs.disk import on_disk
from service.jobs.files import JobFiles, Record
from service.jobs.pace import Pace
from service.jobs.rows import Rows, keep
from service.jobs.sources import lines, parquet_rows, segment_rows
from service.jobs.work import Cancelled
from service.placements import Placements
from service.webhooks.outbound import outbound, why

FETCH_S = 3600.0
CHUNK = 1 << 18
LOOK = 1000
"""Rows between two looks whether the job is still wanted."""


class Prepare:
    """`users`: data/users.parquet. `allow`: what may be read; `hosts`: those that may be private. Sizes are bytes.
    `trust`: as `outbound` has it."""

    def __init__(
        self, files: JobFiles, placements: Placements, pace: Pace, users: Path,
        allow: Sequence[str], hosts: Sequence[str], most_bytes: int, most_row: int, trust: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.files, self.placements, self.pace, self.users = files, placements, pace, users
        self.allow, self.hosts, self.most_bytes, self.most_row = allow, hosts, most_bytes, most_row
        self.trust = trust

    async def run(self, record: Record) -> Record:
        """The record with the number of rows. Raises ServiceError where there can be no input, Cancelled or OSError."""
        folder = self.files.of(record.id)
        try:
            return replace(record, total=await self.fill(record, folder))
        finally:
            for name in ("input.ndjson.partial", "source.parquet"):
                (folder / name).unlink(missing_ok=True)

    async def fill(self, record: Record, folder: Path) -> int:
        """Makes input.ndjson; how many rows it has."""
        rows = Rows(record.kind, record.source.fields, self.placements, self.most_row)
        if record.source.segment is not None:
            found = segment_rows(self.users, record.source.segment)
        else:
            found = parquet_rows(await self.file(record, folder), record.kind)
        partial = folder / "input.ndjson.partial"
        total = await keep(self.wanted(record, lines(found)), rows, partial, self.pace, self.most_bytes)
        partial.rename(folder / "input.ndjson")
        return total

    async def wanted(self, record: Record, rows: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The rows, as long as the job is not cancelled."""
        count = 0
        async for row in rows:
            if count % LOOK == 0 and self.files.cancelled(record.id):
                raise Cancelled(record.id)
            count += 1
            yield row

    async def file(self, record: Record, folder: Path) -> Path:
        """The Parquet file; one of a URL is fetched first."""
        where = record.source.parquet
        assert where is not None
        if not is_url(where):
            return allowed_file(where, self.allow)
        path = folder / "source.parquet"
        url, size = allowed_url(where, self.allow, self.hosts), 0
        try:
            async with (
                outbound(self.hosts, FETCH_S, self.trust) as session,
                session.get(url, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    raise InvalidRequest(FieldError("parquet", f"the server answered {answer.status}"))
                with path.open("wb") as file:
                    async for chunk in answer.content.iter_chunked(CHUNK):
                        size += len(chunk)
                        if size > self.most_bytes:
                            raise InvalidRequest(FieldError("parquet", f"has more than {self.most_bytes:,} bytes"))
                        await on_disk(file.write, chunk)
                        if self.files.cancelled(record.id):
                            raise Cancelled(record.id)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise InvalidRequest(FieldError("parquet", f"cannot be fetched: {why(error)}")) from error
        return path
