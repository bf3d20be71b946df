"""Views as served, out of the serving log: what was before this process started, and windows longer than a day.

The log has the answers of every process of its directory; the tallies of a process have its own.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from service.errors import DeadlineExceeded, LogUnreadable
from service.freshness_wire import Group
from service.served_rows import Asked, rows_of
from service.tallies import DAY_S, LATE, Cell, Tallied, Tallies


def tallied(
    log: Path, slos: Mapping[str, float | None], since: float, before: float, *,
    view: str | None = None, hourly: bool = False, threads: int | None = None,
) -> Iterator[Tallied]:  # fmt: skip
    """The log's answers from `since` to `before` (seconds since the epoch), by the minute or the hour. Blocks.

    Raises LogUnreadable.
    """
    asked = Asked(str(log), dict(slos), since, before, view, hourly, threads)
    for minute, placement, version, seen, status, bucket, count, within in rows_of(asked):
        cell = Cell()
        cell.statuses[status], cell.within = count, within
        if bucket is not None:
            cell.ages[bucket] = count
        yield minute, (placement or "", version, seen), cell


def restore(tallies: Tallies, log: Path, before: float) -> str | None:
    """Tallies what the serving log has of the day before `before` (seconds since the epoch). Blocks.

    Returns why it could not be read, if it could not: a service starts without it.
    """
    try:
        for minute, key, cell in tallied(log, tallies.slos, before - DAY_S, before):
            tallies.minutes.setdefault(minute, defaultdict(Cell))[key].merge(cell)
    except LogUnreadable as error:
        return f"{error}; ages as served begin now"
    tallies.hours.clear()
    for hour in {minute // 60 for minute in tallies.minutes if minute // 60 * 60 + 60 + LATE <= before / 60}:
        tallies.hour(hour)  # here, where it keeps nobody waiting
    return None


class ServedLog:
    """The log in `directory`, of which `keep_days` are kept. `flush` brings what waits to the disk, and may block."""

    def __init__(
        self, directory: Path, keep_days: float, flush: Callable[[], None] = lambda: None, *, timeout_s: float = 30.0
    ) -> None:
        self.directory, self.keep_days, self.flush, self.timeout_s = directory, keep_days, flush, timeout_s
        self.busy = asyncio.Lock()

    async def grouped(self, tallies: Tallies, view: str, window_s: float, by: str, now: float) -> list[Group]:
        """A view as served in the last `window_s` seconds, in groups. Raises LogUnreadable or DeadlineExceeded."""
        # A thread cannot be stopped: it goes on when its caller has left, and the next one waits for it.
        reading = asyncio.create_task(self._read(tallies, view, window_s, by, now))
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async with asyncio.timeout(self.timeout_s):
                return await asyncio.shield(reading)
        except TimeoutError as error:
            said = f"the serving log was not read in {self.timeout_s:g} s; a shorter window takes less"
            raise DeadlineExceeded(said) from error

    async def _read(self, tallies: Tallies, view: str, window_s: float, by: str, now: float) -> list[Group]:
        """One at a time and on one core: the same process answers shoppers."""
        slos = dict(tallies.slos)

        def read() -> list[Group]:
            self.flush()
            since = (now - window_s) // 60 * 60
            found = tallied(self.directory, slos, since, now, view=view, hourly=by != "minute", threads=1)
            return tallies.group(view, found, by)

        async with self.busy:
            return await asyncio.to_thread(read)
