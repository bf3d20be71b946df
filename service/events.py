"""Events as they are sent: each row read on its own, so that a bad one loses nothing of the rest.

What a row may be wrong in is found here; what is right goes to the intake, and counts as accepted once that says so.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from features.errors import FeatureStoreError
from features.events import Event
from features.intake import Accepted as Taken
from service.errors import FieldError, InvalidRequest, MalformedBody, NotStored, ServiceError
from service.http.strict import StrictDecoder, rows_of
from service.wire import Accepted, EventRow, Rejected

MOST_EVENTS = 1_000
LONGEST_LINE = 65_536
LISTED = 1_000
BATCH = 500
Row = bytes | Mapping[str, Any] | ServiceError
"""A row as JSON, as plain values, or what is wrong with it already."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DAY_US = 86_400_000_000


class Intake(Protocol):
    async def accept(self, events: Sequence[Event]) -> Taken: ...


@dataclass(slots=True)
class Outcome:
    """What became of the rows of one request so far."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    rejected_count: int = 0
    token: str | None = None
    rows: int = 0  # that have been dealt with

    def reject(self, index: int, message: str) -> None:
        self.rejected_count += 1
        if len(self.rejected) < LISTED:
            self.rejected.append(Rejected(index, message))

    def wire(self) -> Accepted:
        return Accepted(self.accepted, self.duplicates, self.rejected, self.rejected_count, self.token)


class EventDoor:
    """Takes in events of the given kinds, at most `max_late_s` old and `max_ahead_s` ahead of our clock."""

    def __init__(
        self, intake: Intake, kinds: Sequence[str], *, max_late_s: float, max_ahead_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.intake, self.kinds, self.now = intake, frozenset(kinds), now
        self.max_late_us, self.max_ahead_us = int(max_late_s * 1e6), int(max_ahead_s * 1e6)
        self.decoder = StrictDecoder(EventRow)

    async def one_body(self, body: bytes) -> Accepted:
        """A JSON body `{"events": [...]}`. Raises MalformedBody or InvalidRequest for what is none as a whole, and
        NotStored when the store does not take the rows."""
        outcome = Outcome()
        await self._take(rows_of(body, "events", MOST_EVENTS, "; NDJSON has no limit"), outcome)
        return outcome.wire()

    async def lines(self, chunks: AsyncIterator[bytes]) -> Accepted:
        """NDJSON, an event a line, of any length."""
        return await self.rows(split(chunks))

    async def rows(self, rows: AsyncIterator[Row]) -> Accepted:
        """Any number of rows: no more than a few hundred are in memory at a time. Raises NotStored."""
        outcome = Outcome()
        batch: list[Row] = []
        async for row in rows:
            batch.append(row)
            if len(batch) == BATCH:
                await self._take(batch, outcome)
                batch = []
        await self._take(batch, outcome)
        return outcome.wire()

    async def some(self, rows: Sequence[Row]) -> Accepted:
        """Rows as another door has read them. Raises InvalidRequest for too many, and NotStored."""
        if len(rows) > MOST_EVENTS:
            raise InvalidRequest(FieldError("events", f"Expected at most {MOST_EVENTS:,} rows, got {len(rows):,}"))
        outcome = Outcome()
        await self._take(rows, outcome)
        return outcome.wire()

    async def _take(self, rows: Sequence[Row], outcome: Outcome) -> None:
        first, at = outcome.rows, self.now()
        events = []
        for index, row in enumerate(rows, first):
            try:
                events.append(self._event(row, int(at * 1e6)))
            except (MalformedBody, InvalidRequest) as error:
                outcome.reject(index, str(error))
        outcome.rows += len(rows)
        if not events:
            return
        try:
            taken = await self.intake.accept(events)
        except FeatureStoreError as error:
            before = f"; the rows before {first} are accepted" if first else ""
            raise NotStored(f"{error}{before}. Send the rest again: an event that is in counts once") from error
        new = sum(taken.new)
        outcome.accepted += new
        outcome.duplicates += len(events) - new
        outcome.token = taken.token

    def _event(self, row: Row, now: int) -> Event:
        if isinstance(row, ServiceError):
            raise row
        one: EventRow = self.decoder.decode(row) if isinstance(row, bytes) else self.decoder.convert(row)
        if one.type not in self.kinds:
            raise InvalidRequest(FieldError("type", f"no kind {one.type!r}; there are {', '.join(sorted(self.kinds))}"))
        at = now if one.timestamp is None else microseconds(one.timestamp)
        if at > now + self.max_ahead_us:
            said = f"{spell(at - now)} ahead of our clock; at most {spell(self.max_ahead_us)} is taken"
            raise InvalidRequest(FieldError("timestamp", said))
        if at < now - self.max_late_us:
            said = f"{spell(now - at)} late; at most {spell(self.max_late_us)} is taken"
            raise InvalidRequest(FieldError("timestamp", said))
        return Event(one.event_id, one.user_id, one.item_id, one.type, at, one.session_id, one.value)


def microseconds(timestamp: str | float) -> int:
    """RFC 3339 with an offset, or seconds since the epoch -> microseconds. Raises InvalidRequest."""
    if not isinstance(timestamp, str):
        if abs(timestamp) > 1e11:
            raise InvalidRequest(FieldError("timestamp", f"{timestamp} is no time in seconds since the epoch"))
        return round(timestamp * 1e6)
    try:
        at = datetime.fromisoformat(timestamp)
    except ValueError as error:
        raise InvalidRequest(FieldError("timestamp", f"{timestamp[:40]!r} is no RFC 3339 time")) from error
    if at.tzinfo is None:
        raise InvalidRequest(FieldError("timestamp", f"{timestamp[:40]!r} has no offset (Z or +01:00)"))
    return (at - EPOCH) // MICROSECOND


def spell(us: int) -> str:
    """A span of time for people."""
    seconds = us / 1e6
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.3g} s"


async def split(chunks: AsyncIterator[bytes], longest: int = LONGEST_LINE) -> AsyncIterator[bytes | MalformedBody]:
    """Lines of a stream; an error for one that is longer than it may be. Empty lines are left out."""
    rest, skipping = b"", False
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            for one in finished(line, longest, skipping):
                yield one
            skipping = False
        if len(rest) > longest:
            rest, skipping = b"", True
    for one in finished(rest, longest, skipping):
        yield one


def finished(line: bytes, longest: int, skipping: bool) -> Iterator[bytes | MalformedBody]:
    if skipping or len(line) > longest:
        yield MalformedBody(f"the line is longer than {longest:,} bytes")
    elif line := line.strip():
        yield line
