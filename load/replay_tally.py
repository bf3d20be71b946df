"""Adds up the outcomes of a replay: in each process that plays a share of it, and then over all of them.

Memory does not grow with the number of requests: histograms by group, and one small one for each of the last seconds.
"""

from __future__ import annotations

import pickle
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from load.histogram import Durations
from load.outcome import Label, Outcome
from load.result import LATE_MS
from load.tally import Tally

# Paths may hold ids: after so many endpoints and placements the others share a group, or memory would grow with them.
MAX_LABELS = 64
OTHERS = Label("others", None)


class Group(NamedTuple):
    """What a histogram is of; `status` is a number, or why there was no answer."""

    endpoint: str
    placement: str | None
    status: str


@dataclass(slots=True)
class Cell:
    """One second of a run: of what was due in it, how many, failed and degraded, and the latencies in microseconds.

    `sent` and `answered` count what was sent and answered in it, whenever it was due; `statuses` says how what was due
    in it ended: a status, or why there was no answer.
    """

    intended: int = 0
    sent: int = 0
    answered: int = 0
    errors: int = 0
    degraded: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    latencies: array[int] = field(default_factory=lambda: array("Q"))


class News(NamedTuple):
    """What a process has seen since it last told: finished requests, and the seconds that they touch."""

    finished: int
    late: int
    errors: int
    cells: dict[int, Cell]


class ReplayTally:
    """A run's outcomes from `since` seconds on; the second that begins there is number 0. See Tally for what counts."""

    def __init__(self, since: float = 0.0) -> None:
        self._since = since
        self.tally = Tally(since)
        self.groups: dict[Group, Durations] = {}
        self.late = 0
        self.servers: Counter[str] = Counter()
        self._labels: set[Label] = set()
        self._told = (0, 0, 0)
        self._cells: dict[int, Cell] = {}

    def add(self, outcome: Outcome) -> None:
        """Take in one outcome."""
        at = outcome.at - self._since
        if at < 0:
            return
        ok, degraded = self.tally.ok, self.tally.degraded_answers
        self.tally.add(outcome)
        status = outcome.error
        if outcome.answer is not None:
            status = str(outcome.answer.status)
            self.servers[outcome.answer.server] += 1
        assert status is not None
        self._group(outcome.label, status).record(outcome.latency)
        if outcome.lateness * 1e3 > LATE_MS:
            self.late += 1
        cell = self._cell(at)
        cell.intended += 1
        cell.statuses[status] += 1
        cell.degraded += self.tally.degraded_answers - degraded
        if self.tally.ok == ok:
            cell.errors += 1
        if self.tally.ok > ok or status in ("unanswered", "unsent"):
            cell.latencies.append(round(outcome.latency * 1e6))
        if outcome.since_sent is not None:
            self._cell(at + outcome.latency - outcome.since_sent).sent += 1
        if outcome.answer is not None:
            self._cell(at + outcome.latency).answered += 1

    def news(self) -> News:
        """What came since the last call."""
        now = (self.tally.planned, self.late, self.tally.planned - self.tally.ok)
        finished, late, errors = (new - old for new, old in zip(now, self._told, strict=True))
        changed = News(finished, late, errors, self._cells)
        self._told, self._cells = now, {}
        return changed

    def merge(self, other: ReplayTally) -> None:
        """Take in another process's; its `news` go to Seconds."""
        self.tally.merge(other.tally)
        self.late += other.late
        self.servers.update(other.servers)
        for group, durations in other.groups.items():
            self.groups.setdefault(group, Durations()).merge(durations)

    def _cell(self, at: float) -> Cell:
        return self._cells.setdefault(int(at), Cell())

    def _group(self, label: Label, status: str) -> Durations:
        if label not in self._labels:
            if len(self._labels) < MAX_LABELS:
                self._labels.add(label)
            else:
                label = OTHERS
        group = Group(label.endpoint, label.placement, status)
        if group not in self.groups:
            self.groups[group] = Durations()
        return self.groups[group]


class Second(NamedTuple):
    """One second of a run as it stands."""

    cell: Cell
    latency: Durations


class Seconds:
    """The seconds of a run, put together from the news of its processes.

    The last `HELD` keep their histogram open; of an older one, which few answers reach, there is its encoding only.
    """

    HELD = 60

    def __init__(self) -> None:
        self._counts: dict[int, Cell] = {}
        self._open: dict[int, Durations] = {}
        self._closed: dict[int, bytes] = {}
        # Used again: a histogram and its encoder hold each other, and would stay until some collection of garbage.
        self._spare: list[Durations] = []
        self._recent = Durations(2)

    def add(self, cells: dict[int, Cell]) -> None:
        """Take in what one process tells of some seconds."""
        for number, more in cells.items():
            cell = self._counts.setdefault(number, Cell())
            for name in ("intended", "sent", "answered", "errors", "degraded"):
                setattr(cell, name, getattr(cell, name) + getattr(more, name))
            cell.statuses.update(more.statuses)
            if more.latencies:
                durations = self._opened(number)
                for microseconds in more.latencies:
                    durations.record(microseconds / 1e6)
        while len(self._open) > self.HELD:
            oldest = min(self._open)
            durations = self._open.pop(oldest)
            self._closed[oldest] = pickle.dumps(durations)
            durations.clear()
            self._spare.append(durations)

    def __len__(self) -> int:
        """One more than the number of the last second in which anything was due, sent or answered."""
        return max(self._counts, default=-1) + 1

    def __getitem__(self, number: int) -> Second:
        """Any second below `len`, an empty one as well."""
        durations = self._open.get(number)
        if durations is None and number in self._closed:
            durations = _unpacked(self._closed[number])
        return Second(self._counts.get(number, Cell()), durations or Durations(2))

    def recent(self, seconds: int) -> Durations:
        """The latencies of what was due in the last few seconds of which anything is known."""
        self._recent.clear()
        for number in sorted(self._open)[-seconds:]:
            self._recent.merge(self._open[number])
        return self._recent

    def _opened(self, number: int) -> Durations:
        if number not in self._open:
            packed = self._closed.pop(number, None)
            fresh = self._spare.pop() if self._spare else Durations(2)
            if packed is not None:
                fresh.merge(_unpacked(packed))
            self._open[number] = fresh
        return self._open[number]


def _unpacked(packed: bytes) -> Durations:
    durations = pickle.loads(packed)  # noqa: S301 - made above, by this very process
    assert isinstance(durations, Durations)
    return durations
