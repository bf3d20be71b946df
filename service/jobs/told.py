"""What is told of a job."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from service.jobs.files import Progress, Record
from service.jobs.wire import JobStatus


def status_of(record: Record, progress: Progress, *, cancelled: bool) -> JobStatus:
    """`cancelled`: whether somebody wants it to end."""
    state, rate, left = record.state, None, None
    if not record.ended and cancelled:
        state = "cancelled" if state == "queued" else "cancelling"
    if state == "running" and record.total is not None and progress.rate:
        rate = round(progress.rate, 3)
        left = (record.total - progress.done) / progress.rate
    return JobStatus(
        id=record.id,
        kind=record.kind,
        state=state,
        created_at=moment(record.created_at),
        started_at=None if record.started_at is None else moment(record.started_at),
        ended_at=None if record.ended_at is None else moment(record.ended_at),
        total=record.total,
        done=progress.done,
        failed=progress.failed,
        rate=rate,
        estimated_end=None if left is None else moment(time.time() + left),
        error=record.error,
        result=f"/v1/jobs/{record.id}/result",
    )


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(round(at, 3), UTC)
