"""A traffic log as a plan: when each of its requests is due, and what it is made of. The log is streamed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from load.doors import Door
from load.errors import LoadError
from load.outcome import Label, Payload, Planned
from load.traffic_log import Entry, TrafficLog

COMPLAINTS = 20
ANSWERING = ("/v1/recommendations", "/v1/rank")


class _Placed(msgspec.Struct):
    placement: str | None = None


_PLACED = msgspec.json.Decoder(_Placed)


@dataclass(frozen=True, slots=True)
class Pace:
    """How a log's times become a run's: `speed` 2 halves them; it goes on for `seconds` of the run (None: to its end).

    `period_us`, in the log's time, is how far apart two rounds begin where the log is played over and over (`loop`).
    """

    speed: float
    loop: bool = False
    period_us: float = 0.0
    seconds: float | None = None


def plan(path: Path, door: Door[Payload], pace: Pace, part: int = 0, parts: int = 1) -> Iterator[Planned[Payload]]:
    """Every `parts`-th request of the log, from number `part` on, in order of time. Bad rows are passed over.

    Raises LoadError where the log cannot be read.
    """
    number = turn = 0
    while True:
        first: int | None = None
        for entry in TrafficLog(path):
            if first is None:
                first = entry.at_us
            at = (entry.at_us - first + turn * pace.period_us) / 1e6 / pace.speed
            if pace.seconds is not None and at >= pace.seconds:
                return
            number += 1
            if (number - 1) % parts == part:
                try:
                    payload = door.encode(entry)
                except ValueError:
                    continue  # the survey has counted it and told of it
                yield Planned(at, payload, label(entry))
        if not pace.loop:
            return
        turn += 1


def label(entry: Entry) -> Label:
    """Endpoint and placement: the body's own, else `home` where an answer is asked for, as the service has it."""
    path = entry.path.partition("?")[0]
    placement = None
    if entry.body is not None:
        try:
            placement = _PLACED.decode(entry.body).placement
        except msgspec.DecodeError:
            placement = None  # events as NDJSON, or a body that is wrong on purpose
    if placement is None and path in ANSWERING:
        placement = "home"
    return Label(f"{entry.method} {path}", placement)


@dataclass(frozen=True, slots=True)
class Survey:
    """What one reading of a log tells: `count` sendable requests over `span_us` of its time, and its bad rows.

    `peaks[k]` is the most requests in any window of 2**k / 16 seconds of the log's time.
    """

    count: int
    span_us: int
    peaks: tuple[int, ...]
    bad: int
    complaints: tuple[str, ...]

    @property
    def period_us(self) -> float:
        """The log's length with the gap after its last request: `count` mean gaps."""
        return self.span_us * self.count / (self.count - 1) if self.count > 1 else 0.0

    def speed_for(self, rate: float) -> float:
        """The speed at which the whole log has `rate` requests/s. Raises LoadError where it has no length."""
        if self.span_us == 0:
            raise LoadError("the log's requests are all at one time: there is no rate to change and no round to repeat")
        return rate * self.period_us / 1e6 / self.count

    def peak_rate(self, speed: float) -> float:
        """Requests/s of the busiest one to two seconds of a run at `speed`."""
        level = min(max(math.ceil(math.log2(16 * speed)), 0), len(self.peaks) - 1)
        return self.peaks[level] / max(float(2**level) / 16 / speed, 1.0)


def survey(path: Path, door: Door[Any], *, strict: bool = False) -> Survey:
    """Read a log once, for what can go through a door.

    Raises LoadError where it cannot be read, has nothing to send or, if `strict`, has a bad row.
    """
    log, peaks, unsendable = TrafficLog(path, strict=strict), _Peaks(), list[str]()
    count = bad = first = last = 0
    for entry in log:
        if count + bad == 0:
            first = entry.at_us
        try:
            door.encode(entry)
        except ValueError as error:
            complaint = f"{path}: the request at {entry.at_us} us: {error}"
            if strict:
                raise LoadError(complaint) from error
            bad += 1
            if len(unsendable) < COMPLAINTS:
                unsendable.append(complaint)
            continue
        count += 1
        last = entry.at_us
        peaks.add(entry.at_us - first)
    complaints = [*log.complaints, *unsendable][:COMPLAINTS]
    if count == 0:
        why = f"; {complaints[0]}" if complaints else ""
        raise LoadError(f"{path}: no request that can be sent ({log.bad + bad} bad rows{why})")
    return Survey(count, last - first, peaks.close(), log.bad + bad, tuple(complaints))


def span_us(path: Path, rows: int) -> int:
    """Microseconds of the log's time from its first row to row number `rows` + 1."""
    first = None
    for number, entry in enumerate(TrafficLog(path)):
        if first is None:
            first = entry.at_us
        if number == rows:
            return entry.at_us - first
    raise LoadError(f"{path}: has fewer than {rows + 1} rows")


def step_pace(path: Path, seen: Survey, rate: float, seconds: float) -> Pace:
    """The pace at which the log's first `seconds` have `rate` requests/s, over and over where it is too short.

    A day's log begins with the night: at the speed that gives the whole of it that rate, a step would see far less.
    """
    whole = Pace(seen.speed_for(rate), True, seen.period_us, seconds)
    rows = math.ceil(rate * seconds)
    if rows >= seen.count:
        return whole
    length = span_us(path, rows)
    return replace(whole, speed=length / 1e6 / seconds) if length else whole


class _Peaks:
    """The most requests in any window of each length, without a window's count for each: one pass, 32 numbers."""

    LEVELS = 32

    def __init__(self) -> None:
        self._slot, self._pending = 0, 0
        self._open, self._most = [0] * self.LEVELS, [0] * self.LEVELS

    def add(self, at_us: int) -> None:
        slot = at_us // 62_500
        if slot != self._slot:
            self._move(slot)
        self._pending += 1

    def close(self) -> tuple[int, ...]:
        self._move(-1)
        return tuple(self._most)

    def _move(self, slot: int) -> None:
        for level in range(self.LEVELS):
            self._open[level] += self._pending
            if slot >> level != self._slot >> level:
                self._most[level] = max(self._most[level], self._open[level])
                self._open[level] = 0
        self._slot, self._pending = slot, 0
