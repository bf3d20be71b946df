"""Who does jobs: of all processes of a deployment the one that has the lock, a job at a time, the oldest first.

The lock goes with the process, however that ends; another one then goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from ranking.errors import EngineStopped
from service.errors import ServiceError
from service.jobs.files import JobFiles, Record, held
from service.jobs.prepare import Prepare
from service.jobs.told import status_of
from service.jobs.wire import State
from service.jobs.work import Cancelled, Work
from service.webhooks.outbox import Message, Outbox
from service.webhooks.sender import Sender

LOOK_S = 0.5
TROUBLE_S = 5.0
TIDY_S = 3600.0
DAY_S = 86400.0

log = logging.getLogger(__name__)


class Runner:
    """`keep_days`: of jobs that have ended, and of webhooks that nobody took."""

    def __init__(
        self, files: JobFiles, prepare: Prepare, work: Work, outbox: Outbox, sender: Sender, keep_days: float
    ) -> None:
        self.files, self.prepare, self.work = files, prepare, work
        self.outbox, self.sender, self.keep_s = outbox, sender, keep_days * DAY_S
        self.task: asyncio.Task[None] | None = None
        self.wake = asyncio.Event()

    def start(self) -> None:
        self.task = asyncio.create_task(self.run())

    async def stop(self) -> None:
        """Leaves the job that is under way to whoever comes next."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def run(self) -> None:
        while True:
            try:
                with held(self.files.directory / "lock") as mine:
                    if mine:
                        await self.lead()
            except EngineStopped:
                return
            except OSError as error:
                log.warning("jobs wait: %s", error)
                await asyncio.sleep(TROUBLE_S)
            except Exception:
                log.exception("jobs wait")
                await asyncio.sleep(TROUBLE_S)
            await asyncio.sleep(LOOK_S)

    async def lead(self) -> None:
        """Until something fails, or this process is to end."""
        sending = asyncio.create_task(self.sender.run())
        tidied = float("-inf")
        try:
            while True:
                if time.monotonic() - tidied > TIDY_S:
                    await asyncio.to_thread(self.tidy)
                    tidied = time.monotonic()
                record = await asyncio.to_thread(self.next)
                if record is not None:
                    await self.do(record)
                    continue
                self.wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), LOOK_S)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def tidy(self) -> None:
        self.files.tidy(time.time() - self.keep_s)
        self.outbox.tidy(time.time() - self.keep_s)

    def next(self) -> Record | None:
        """The oldest job that has not ended. Those that were cancelled before their turn end here."""
        for record in self.files.all():
            if record.ended:
                continue
            if not self.files.cancelled(record.id):
                return record
            self.end(record, "cancelled")
        return None

    async def do(self, record: Record) -> None:
        """One job; whatever becomes of it is on record then, unless this process is to end."""
        try:
            record = replace(record, started_at=record.started_at or time.time())
            if record.total is None:
                record = await self.note(replace(record, state="preparing"))
                record = await self.prepare.run(record)
            record = await self.note(replace(record, state="running"))
            await self.work.run(record)
        except (EngineStopped, OSError):
            raise
        except Cancelled:
            await asyncio.to_thread(self.end, record, "cancelled")
        except ServiceError as error:
            await asyncio.to_thread(self.end, record, "failed", str(error))
        except Exception:
            log.exception("job %s failed", record.id)
            await asyncio.to_thread(self.end, record, "failed", "the service failed on this job")
        else:
            await asyncio.to_thread(self.end, record, "succeeded")

    async def note(self, record: Record) -> Record:
        await asyncio.to_thread(self.files.write, record)
        return record

    def end(self, record: Record, state: State, error: str | None = None) -> None:
        """The message first: a process that is killed in between ends the job again, and writes the same message."""
        record = replace(record, state=state, ended_at=time.time(), error=error)
        if record.callback_url is not None and state != "cancelled":
            self.outbox.write(message_of(record, self.files))
        self.files.write(record)


def message_of(record: Record, files: JobFiles) -> Message:
    """What is told of a job that has ended."""
    assert record.ended_at is not None and record.callback_url is not None
    told = status_of(record, files.progress(record.id), cancelled=False)
    body = {"type": f"job.{record.state}", "timestamp": told.ended_at, "data": told}
    name = f"msg_{record.id}_{record.state}"
    return Message(name, record.callback_url, msgspec.json.encode(body).decode(), record.ended_at, record.ended_at)
