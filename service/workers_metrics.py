"""One scrape for all workers of a supervisor: whoever is asked adds up what all have counted.

Each worker leaves what it has counted in a file of its own, once a second and when it ends; the figures of those that
have died are kept, so that no counter falls. A scrape is thus a second late for the other workers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean

import msgspec
from msgspec import Struct

EVERY_S = 1.0
ENDED = "ended"
LEAST = frozenset({"feast_feature_freshness_seconds", "process_start_time_seconds"})
"""Gauges that all workers know, each on its own: the newest knowledge stands."""
CURVE = "endcap_engine_curve_"
"""With this begin the gauges of what each worker has learned of batches: the mean stands. Others are added up."""

Sample = tuple[str, tuple[tuple[str, str], ...], float]
"""A sample's name, its labels and its value."""


class Family(Struct, frozen=True):
    """One metric of one worker."""

    name: str
    text: str
    kind: str
    samples: list[Sample]


def merged(snapshots: Iterable[Sequence[Family]]) -> list[Family]:
    """The same metrics of all workers together."""
    families: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for snapshot in snapshots:
        for family in snapshot:
            families.setdefault(family.name, family)
            found = values.setdefault(family.name, {})
            for name, labels, value in family.samples:
                found.setdefault((name, labels), []).append(value)
    return [
        Family(one.name, one.text, one.kind,
               [(name, labels, together(one.name, each)) for (name, labels), each in values[one.name].items()])
        for one in families.values()
    ]  # fmt: skip


def together(family: str, values: Sequence[float]) -> float:
    """What all workers' figures of one sample come to."""
    if family in LEAST:
        return min(values)
    return fmean(values) if family.startswith(CURVE) else sum(values)


class MetricsFolder:
    """The files of one supervisor's workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.task: asyncio.Task[None] | None = None

    def write(self, families: Sequence[Family], name: str = "") -> None:
        path = self.folder / (name or str(os.getpid()))
        beside = path.with_name(f".{path.name}")
        beside.write_bytes(msgspec.msgpack.encode(families))
        beside.replace(path)

    def others(self) -> list[list[Family]]:
        """What the other workers had counted when they last said so, and those that have ended."""
        mine = str(os.getpid())
        return [self._read(path) for path in self.folder.iterdir() if path.name != mine and path.name[0] != "."]

    def end(self, pid: int) -> None:
        """Keeps the counters of a worker that has died; its gauges are gone with it. For the supervisor."""
        path = self.folder / str(pid)
        if path.exists():
            counted = [one for one in self._read(path) if one.kind != "gauge"]
            before = [self._read(self.folder / ENDED)] if (self.folder / ENDED).exists() else []
            self.write(merged([*before, counted]), ENDED)
            path.unlink()

    def _read(self, path: Path) -> list[Family]:
        try:
            return msgspec.msgpack.decode(path.read_bytes(), type=list[Family])
        except FileNotFoundError:  # it ended just now
            return []

    def start(self, snapshot: Callable[[], list[Family]]) -> None:
        """Writes this worker's file from now on."""
        self.task = asyncio.create_task(self._run(snapshot))

    async def _run(self, snapshot: Callable[[], list[Family]]) -> None:
        while True:
            self.write(snapshot())
            await asyncio.sleep(EVERY_S)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
