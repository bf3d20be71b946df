"""Feature values as served, counted into the bins of the training statistics: one version's last hour in one process,
and what several processes have counted together.

An hour in sixty tallies of a minute, and not a decaying mean: whole counts of known answers say how much can be said of
them, add up over processes exactly, and a shift that is over is gone an hour later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from msgspec import Struct

from ranking.schema import Dense, UserSchema
from ranking.statistics import Bins, Numbers, Statistics, inputs, made_of

MINUTES = 60


class Described(Protocol):
    """A loaded version."""

    name: str
    version: str
    schema: UserSchema
    statistics: dict[str, Statistics]


class Counted(Struct):
    """What was counted of one version. `counts` has each feature's bins in a row and after them how many were below
    training's p1 and above its p99; `least` and `most` are of the numbers served, a feature each."""

    model: str
    version: str
    answers: int
    anonymous: int
    counts: list[int]
    least: list[float]
    most: list[float]


@dataclass(frozen=True, slots=True)
class Column:
    """A feature's place in `counts`, from `start` on; `low` and `high` are training's p1 and p99."""

    reference: str
    bins: Bins
    start: int
    low: float = -np.inf
    high: float = np.inf

    @property
    def width(self) -> int:
        return len(self.bins) + 2


class Tally:
    """The counts of a minute, or of several."""

    __slots__ = ("anonymous", "answers", "counts", "least", "most")

    def __init__(self, features: int, width: int) -> None:
        self.answers = self.anonymous = 0
        self.counts = np.zeros(width, np.int64)
        self.least, self.most = np.full(features, np.inf), np.full(features, -np.inf)

    def merge(self, answers: int, anonymous: int, counts: Any, least: Any, most: Any) -> None:
        self.answers += answers
        self.anonymous += anonymous
        self.counts += counts
        self.least, self.most = np.minimum(self.least, least), np.maximum(self.most, most)


class Window:
    """One version's last hour. `add` takes raw feature values by Feast reference."""

    def __init__(self, model: Described) -> None:
        self.model = model
        self.columns: list[Column] = []
        start = 0
        for reference, one in inputs(model.schema).items():
            found = model.statistics.get(reference)
            column = Column(reference, Bins(one, found), start)
            if isinstance(found, Numbers) and found.p1 is not None and found.p99 is not None:
                column = Column(reference, column.bins, start, found.p1, found.p99)
            self.columns.append(column)
            start += column.width
        self.width = start
        self.minutes: dict[int, Tally] = {}

    def new(self) -> Tally:
        return Tally(len(self.columns), self.width)

    def add(self, answers: Sequence[Mapping[str, Any]], anonymous: int, minute: int) -> None:
        """`minute` is since the epoch."""
        if minute not in self.minutes:
            self.minutes = {one: tally for one, tally in self.minutes.items() if one > minute - MINUTES}
            self.minutes[minute] = self.new()
        places: list[int] = []
        least, most = np.full(len(self.columns), np.inf), np.full(len(self.columns), -np.inf)
        for number, column in enumerate(self.columns):
            bins, start, beyond = column.bins, column.start, column.start + len(column.bins)
            made = [made_of(bins.input, values.get(column.reference)) for values in answers]
            places += [start + bins.place(one) for one in made]
            numbers = [one for one in made if isinstance(one, float)]
            if numbers:
                least[number], most[number] = min(numbers), max(numbers)
                places += [beyond] * sum(one < column.low for one in numbers)
                places += [beyond + 1] * sum(one > column.high for one in numbers)
        counts = np.bincount(np.array(places, np.int64), minlength=self.width)
        self.minutes[minute].merge(len(answers), anonymous, counts, least, most)

    def counted(self, minute: int) -> Counted:
        """The hour that ends with `minute`."""
        total = self.new()
        for at, one in self.minutes.items():
            if at > minute - MINUTES:
                total.merge(one.answers, one.anonymous, one.counts, one.least, one.most)
        return self.told(total)

    def together(self, found: Iterable[Counted]) -> Counted:
        """What all processes have counted of this version. Those that have it with other statistics are left out."""
        total = self.new()
        for one in found:
            same = (one.model, one.version) == (self.model.name, self.model.version)
            if same and len(one.counts) == self.width:
                total.merge(one.answers, one.anonymous, one.counts, one.least, one.most)
        return self.told(total)

    def told(self, one: Tally) -> Counted:
        return Counted(
            self.model.name, self.model.version, one.answers, one.anonymous, one.counts.tolist(), one.least.tolist(),
            one.most.tolist(),
        )  # fmt: skip


def plain_number(column: Column) -> bool:
    return isinstance(column.bins.input, Dense) and column.bins.input.vocabulary is None


class CountedFolder:
    """Where the workers of one supervisor leave what they have counted, a file each (`service.workers_metrics`)."""

    def __init__(self, beside: Path) -> None:
        self.folder = beside / ".skew"  # with a dot: no worker's metrics
        self.folder.mkdir(exist_ok=True)

    def write(self, pid: int, found: Sequence[Counted]) -> None:
        path = self.folder / str(pid)
        new = path.with_name(f".{pid}")
        new.write_bytes(msgspec.msgpack.encode(found))
        new.replace(path)

    def others(self, pid: int) -> list[list[Counted]]:
        """What the other workers had counted when they last said so."""
        return [self._read(path) for path in self.folder.iterdir() if path.name[0] != "." and path.name != str(pid)]

    def end(self, pid: int) -> None:
        """Forgets a worker that has died: its hour would stand still."""
        (self.folder / str(pid)).unlink(missing_ok=True)

    def _read(self, path: Path) -> list[Counted]:
        try:
            return msgspec.msgpack.decode(path.read_bytes(), type=list[Counted])
        except FileNotFoundError:  # it ended just now
            return []
