"""A version on its way in: loaded, checked, told of the item changes so far, and warmed up, all beside the answering.

It is done on a thread of its own, and by one worker of a machine at a time: the shoppers of all of them
would feel it if every core loaded at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from features.catalogue import Catalogue
from features.errors import FeatureStoreError
from features.facts import Feast
from features.popularity import NAMES, Counted, Popularity
from ranking.batcher import InlineEngine, LocalEngine, hold_to_one_core
from ranking.bundle import Bundle
from ranking.engine import BatchPath
from ranking.inherited import inherit
from ranking.items import STATS_AT
from ranking.live import Change
from ranking.registry import Registry
from ranking.versions import Versions, load
from service.fit import Fit, fit
from service.placements import Placement
from service.warm_up import warm_apart

log = logging.getLogger(__name__)

STORE_S, COUNTS_S = 2.0, 0.5
"""How long the store's item changes, and its counts of items, are waited for; later they come while it answers."""
TURN_S, TURN_EVERY_S = 10.0, 0.02
"""How long another worker's loading is waited for at the most, and how often it is looked whether it has ended."""
PIECE = 500
"""Item changes that are applied in one go."""

Changes = Sequence[Change]


class ItemStream:
    """Item changes on their way to the engine, and to the versions that are not with it yet. On the event loop only."""

    def __init__(self, engine: InlineEngine | LocalEngine) -> None:
        self.engine = engine
        self.missing: list[deque[Changes]] = []

    def __call__(self, changes: Changes) -> None:
        self.engine.change(changes)
        for missed in self.missing:
            missed.append(changes)

    def counted(self, found: Sequence[Counted]) -> None:
        self([(one.item_id, {**one.counts, STATS_AT: one.at}) for one in found])

    @contextmanager
    def kept(self) -> Iterator[deque[Changes]]:
        """What comes from now to the end of the block."""
        missed = deque[Changes]()
        self.missing.append(missed)
        try:
            yield missed
        finally:
            self.missing = [one for one in self.missing if one is not missed]


class Warmer(Protocol):
    """Has the engine answer a version's first queries."""

    async def __call__(self, bundles: Sequence[Bundle]) -> None: ...


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A version that may answer. `fit`: what must be read for it; `uncounted`: items of which only the store knows what
    has been counted."""

    bundle: Bundle
    path: BatchPath
    fit: Fit
    uncounted: Iterable[str]


@dataclass(slots=True)
class Entrance:
    """Where versions come in. `make` makes a bundle's batch path, `lock` names the file that says whose turn it is
    (None: there is no other worker), `by_engine` warms up where only the engine's own thread can (on a GPU)."""

    registry: Registry
    feast: Feast
    make: Callable[[Bundle], BatchPath]
    placements: Mapping[str, Placement]
    engine: InlineEngine | LocalEngine
    stream: ItemStream
    catalogue: Catalogue
    follower: Catalogue
    popularity: Popularity
    lock: Path | None = None
    by_engine: Warmer | None = None

    async def bring_in(self, name: str, version: str, sibling: Bundle, check: Callable[[Newcomer], None]) -> Newcomer:
        """Loads a version and has it ready with the engine, where nobody asks for it yet. `check` may refuse it;
        `sibling` is one that answers.

        Raises BundleError or FeaturesError, and whatever a user's model raises.
        """
        async with turn(self.lock):
            with a_thread() as pool, self.stream.kept() as missed:

                async def apart(do: Callable[[], None]) -> None:
                    await asyncio.get_running_loop().run_in_executor(pool, do)

                await self.engine.do(lambda desk: None)  # what came before is in the sibling then
                newcomer = await asyncio.get_running_loop().run_in_executor(pool, self.load, name, version, sibling)
                check(newcomer)
                # What the store holds comes before what came meanwhile, which is newer.
                path, held = newcomer.path, [await self.changes_held(), await self.counts_held(newcomer)]
                await apart(lambda: take_in(path, deque(piece for one in held for piece in in_pieces(one or ()))))
                if self.by_engine is None:
                    await apart(lambda: warm_apart(path, self.placements))
                await apart(lambda: take_in(path, missed))
                rest = list(missed)
                missed.clear()
                await self.engine.do(lambda desk: desk.join(newcomer.bundle.key, path, rest))
            if None in held:
                log.warning("%s: the store did not say all of its items in time; it does so later", newcomer.bundle.key)
                self.follower.start_over()
                self.popularity.start_over()
            if newcomer.fit.item_view is not None and self.popularity.task is None:
                self.popularity.start(self.stream.counted)
            if self.by_engine is not None:
                await self.by_engine([newcomer.bundle])
        return newcomer

    def load(self, name: str, version: str, sibling: Bundle) -> Newcomer:
        """Raises BundleError where the version is damaged or does not fit the Feast registry, or FeaturesError."""
        bundle = load(self.registry, name, version)
        found = fit(self.feast.facts(), Versions({name: {version: bundle}}, {bundle.key: version}))
        uncounted = None if found.item_view is None else inherit(bundle, sibling, NAMES)
        return Newcomer(bundle, self.make(bundle), found, bundle.items.ids if uncounted is None else uncounted)

    async def changes_held(self) -> Changes | None:
        """What all item changes so far say together; None where the store does not say in time."""
        try:
            async with asyncio.timeout(STORE_S):
                found, _ = await self.catalogue.load()
        except (TimeoutError, FeatureStoreError):
            return None
        return [(one.item_id, one.facts) for one in found]

    async def counts_held(self, newcomer: Newcomer) -> Changes | None:
        """What is counted of those of the version's items of which nobody here knows, likewise."""
        if newcomer.fit.item_view is None:
            return ()
        found: list[Change] = []

        def take(some: Sequence[Counted]) -> None:
            found.extend((one.item_id, {**one.counts, STATS_AT: one.at}) for one in some)

        try:
            async with asyncio.timeout(COUNTS_S):
                await self.popularity.hand_over(newcomer.uncounted, take)
        except (TimeoutError, FeatureStoreError):
            return None
        return found


def in_pieces(changes: Changes) -> Iterator[Changes]:
    left = iter(changes)
    while piece := list(islice(left, PIECE)):
        yield piece


def take_in(path: BatchPath, missed: deque[Changes]) -> None:
    while missed:
        path.change(missed.popleft())


@contextmanager
def a_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread for work beside the answering. Of no lower priority: one that waits for a core and has the interpreter
    would have the event loop wait as well."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="endcap-newcomer", initializer=hold_to_one_core)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def turn(lock: Path | None) -> AsyncIterator[None]:
    """Until the end of the block no other worker loads; but one that does not come to its end is not waited for."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        until = asyncio.get_running_loop().time() + TURN_S
        while asyncio.get_running_loop().time() < until:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(TURN_EVERY_S)
        yield
