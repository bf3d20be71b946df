"""Takes in jobs and tells of them; in every process, whoever does the work. Transports speak to it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec

from service.errors import (
    FieldError,
    IdempotencyMismatch,
    InvalidRequest,
    TooLarge,
    TooManyJobs,
    UnknownJob,
)
from service.jobs.allowed import allowed_file, allowed_url, is_url
from service.jobs.arrow import arrow_rows
from service.jobs.disk import on_disk
from service.jobs.files import JobFiles, Record, Source
from service.jobs.prepare import Prepare
from service.jobs.result import Result
from service.jobs.rows import Rows, keep, split
from service.jobs.sources import check_parquet, check_segment, lines
from service.jobs.told import status_of
from service.jobs.wire import JobList, JobRequest, JobStatus, Kind
from service.webhooks.outbound import Refused, check_url

MOST_LISTED = 1000
SOURCES = ("user_ids", "segment", "parquet", "rows")


class Desk:
    """`max_jobs`: that have not ended. `callbacks`: whether webhooks can be signed. `told`: there is another job."""

    def __init__(
        self, files: JobFiles, prepare: Prepare, *, max_jobs: int, callbacks: bool, hosts: Collection[str],
        told: Callable[[], None],
    ) -> None:  # fmt: skip
        self.files, self.prepare, self.told = files, prepare, told
        self.max_jobs, self.callbacks, self.hosts = max_jobs, callbacks, hosts

    async def create(self, asked: JobRequest, body: bytes, key: str | None) -> tuple[JobStatus, bool]:
        """A job whose input is in its request, or where that says; and whether it is new. Raises ServiceError."""
        if sum(getattr(asked, name) is not None for name in SOURCES) != 1:
            raise InvalidRequest(FieldError("", f"Expected exactly one of {', '.join(SOURCES)}"))
        self.check_callback(asked.callback_url)
        fingerprint = hashlib.sha256(body).hexdigest()
        if (found := await self.known(key, fingerprint)) is not None:
            return found
        rows = self.rows(asked.kind, asked.request)
        await self.room()
        inline = [{"user_id": one} for one in asked.user_ids] if asked.user_ids is not None else asked.rows
        source = Source()
        if inline is None:
            await asyncio.to_thread(self.check_source, asked, rows)
            source = Source(asked.segment, asked.parquet, asked.request)
        with self.files.drafting() as folder:
            total = None
            if inline is not None:
                total = await self.keep(each(inline), rows, folder)
            return await self.publish(folder, asked.kind, key, fingerprint, source, asked.callback_url, total)

    async def upload(
        self, kind: Kind, fields: dict[str, Any], callback_url: str | None, chunks: AsyncIterator[bytes],
        key: str | None, *, arrow: bool,
    ) -> tuple[JobStatus, bool]:  # fmt: skip
        """A job whose input is a body, NDJSON or an Arrow stream, as it comes. Raises ServiceError."""
        self.check_callback(callback_url)
        rows = self.rows(kind, fields)
        digest = hashlib.sha256(msgspec.json.encode([kind, fields, callback_url, arrow]))
        counted = self.counted(chunks, digest)
        if key is not None and await asyncio.to_thread(self.files.read, id_of(key)) is not None:
            async for _ in counted:
                pass
            found = await self.known(key, digest.hexdigest())
            if found is not None:
                return found
            raise UnknownJob("the job of this Idempotency-Key was removed a moment ago; send it again")
        await self.room()
        with self.files.drafting() as folder:
            if arrow:
                await spool(counted, folder / "upload.arrow")
                total = await self.keep(lines(arrow_rows(folder / "upload.arrow", kind)), rows, folder)
                (folder / "upload.arrow").unlink()
            else:
                total = await self.keep(split(counted, rows.most_bytes), rows, folder)
            return await self.publish(folder, kind, key, digest.hexdigest(), Source(), callback_url, total)

    async def status(self, job: str) -> JobStatus:
        """Raises UnknownJob."""
        return await asyncio.to_thread(self.look, job)

    async def all(self) -> JobList:
        def listed() -> JobList:
            records = self.files.all()[::-1][:MOST_LISTED]
            return JobList([self.tell(record) for record in records])

        return await asyncio.to_thread(listed)

    async def cancel(self, job: str) -> JobStatus:
        """Has it end soon; one that has ended stays as it is. Raises UnknownJob."""
        status = await self.status(job)
        if status.ended_at is None:
            await asyncio.to_thread(self.files.cancel, job)
            self.told()
        return await self.status(job)

    async def result(self, job: str) -> Result:
        """As far as it is on the disk for good. Raises UnknownJob."""

        def found() -> Result:
            status = self.look(job)  # before its size: what has ended grows no more
            path, size = self.files.of(job) / "result.ndjson", self.files.progress(job).size
            return Result(job, path, size, status.state, status.ended_at is not None)

        return await asyncio.to_thread(found)

    def look(self, job: str) -> JobStatus:
        if (record := self.files.read(job)) is None:
            raise UnknownJob(f"there is no job {job[:100]!r}; jobs are removed jobs.keep_days after their end")
        return self.tell(record)

    def tell(self, record: Record) -> JobStatus:
        return status_of(record, self.files.progress(record.id), cancelled=self.files.cancelled(record.id))

    def rows(self, kind: Kind, fields: dict[str, Any]) -> Rows:
        rows = Rows(kind, fields, self.prepare.placements, self.prepare.most_row)
        rows.check(fields)
        return rows

    async def keep(self, found: AsyncIterator[bytes], rows: Rows, folder: Path) -> int:
        return await keep(found, rows, folder / "input.ndjson", self.prepare.pace, self.prepare.most_bytes)

    async def counted(self, chunks: AsyncIterator[bytes], digest: Any) -> AsyncIterator[bytes]:
        """The body, bounded. Raises TooLarge."""
        size, most = 0, self.prepare.most_bytes
        async for chunk in chunks:
            size += len(chunk)
            if size > most:
                raise TooLarge(f"the input of a job may have {most:,} bytes, decompressed (jobs.max_mb)")
            digest.update(chunk)
            yield chunk

    def check_callback(self, url: str | None) -> None:
        """Raises InvalidRequest."""
        if url is None:
            return
        if not self.callbacks:
            raise InvalidRequest(FieldError("callback_url", "no secret is set that webhooks are signed with"))
        try:
            check_url(url, self.hosts)
        except Refused as error:
            raise InvalidRequest(FieldError("callback_url", str(error))) from error

    def check_source(self, asked: JobRequest, rows: Rows) -> None:
        """What can be known at once of rows that are read later. Blocks. Raises InvalidRequest or MalformedBody."""
        prepare = self.prepare
        if asked.parquet is not None and is_url(asked.parquet):
            allowed_url(asked.parquet, prepare.allow, prepare.hosts)
        elif asked.parquet is not None:
            check_parquet(allowed_file(asked.parquet, prepare.allow), asked.kind)
        else:
            assert asked.segment is not None
            check_segment(prepare.users, asked.segment)
            rows.whole(b'{"user_id":"u"}', 0)

    async def known(self, key: str | None, fingerprint: str) -> tuple[JobStatus, bool] | None:
        """The job that this key has made already, if it has. Raises IdempotencyMismatch."""
        found = None if key is None else await asyncio.to_thread(self.files.read, id_of(key))
        return None if found is None else (await asyncio.to_thread(self.same, found, fingerprint), False)

    def same(self, found: Record, fingerprint: str) -> JobStatus:
        if found.fingerprint != fingerprint:
            raise IdempotencyMismatch(f"this Idempotency-Key has made job {found.id} of another request")
        return self.tell(found)

    async def room(self) -> None:
        """Raises TooManyJobs."""
        waiting = await asyncio.to_thread(lambda: sum(not one.ended for one in self.files.all()))
        if waiting >= self.max_jobs:
            raise TooManyJobs(f"{waiting} jobs have not ended, which is as many as jobs.max_jobs allows")

    async def publish(
        self, folder: Path, kind: Kind, key: str | None, fingerprint: str, source: Source, callback_url: str | None,
        total: int | None,
    ) -> tuple[JobStatus, bool]:  # fmt: skip
        job = token_hex(12) if key is None else id_of(key)
        record = Record(job, kind, "queued", time.time(), fingerprint, source, callback_url, total)
        found = await asyncio.to_thread(self.files.publish, folder, record)
        self.told()
        return await asyncio.to_thread(self.same, found, fingerprint), found is record


def id_of(key: str) -> str:
    """The id of the job that a key makes: so that of two at once only one can be there."""
    return hashlib.sha256(key.encode()).hexdigest()[:24]


async def each(rows: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    for row in rows:
        yield msgspec.json.encode(row)


async def spool(chunks: AsyncIterator[bytes], path: Path) -> None:
    with path.open("wb") as file:
        async for chunk in chunks:
            await on_disk(file.write, chunk)
