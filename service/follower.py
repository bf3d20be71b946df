"""Follows what the models' aliases say: loads what is newly needed beside what answers, then changes over.

Each process does so for itself. Twice a second it looks whether a model's state has changed. A version that is needed
and not loaded comes in (`service.newcomer`) while all goes on as before; then, in one step of the event loop, requests
that begin from now on get the new one. Those under way keep the version they began with. What nobody needs any more
stays until none of them can be left, and goes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from features.errors import FeaturesError
from ranking.bundle import MANIFEST, Bundle
from ranking.errors import RankingError, RegistryError
from ranking.registry import present
from ranking.schema import ItemSchema
from ranking.versions import Target, Versions, target
from service.lean import give_back
from service.newcomer import Entrance, Newcomer
from service.reads import Reads

log = logging.getLogger(__name__)

EVERY_S = 0.5

Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A version that was to be loaded and is not: why, and since when. `manifest` is what would have to change."""

    model: str
    version: str
    reason: str
    at: datetime
    manifest: Stamp = None


class Follower:
    """Keeps `versions` at what the registry says. On the event loop only.

    `refused` has the versions that are not loaded though they should be. `grace_s`: how long a request may take.
    """

    def __init__(
        self,
        versions: Versions,
        entrance: Entrance,
        reads: Reads,
        *,
        keep: int,
        grace_s: float,
        describe: Callable[[Bundle], None] = lambda bundle: None,
        misfits: Mapping[tuple[str, str], str] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.registry, self.versions, self.entrance, self.reads = entrance.registry, versions, entrance, reads
        self.keep, self.grace_s, self.describe, self.clock = keep, grace_s, describe, clock
        self.refused = {one: self.refusal(*one, why) for one, why in (misfits or {}).items()}
        self.stamps: dict[str, Hashable] = {}
        self.targets: dict[str, Target] = {}
        self.leaving: dict[str, tuple[Bundle, float]] = {}
        self.swaps = self.described = 0
        self.task: asyncio.Task[None] | None = None
        self.loading: asyncio.Task[None] | None = None
        self.wake = asyncio.Event()

    def start(self) -> None:
        self.task = asyncio.create_task(self.follow())

    async def follow(self) -> None:
        while True:
            self.wake.clear()
            try:
                await self.look()
            except Exception:
                log.exception("what the models' aliases say is not followed")  # a mistake of ours: it must be seen
            try:
                async with asyncio.timeout(EVERY_S):
                    await self.wake.wait()
            except TimeoutError:
                continue

    async def catch_up(self) -> None:
        """Until what is needed now is loaded, or refused."""
        await self.look()
        while self.loading is not None:
            await self.loading
            await self.look()

    async def stop(self) -> None:
        tasks = [one for one in (self.task, self.loading) if one is not None]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self) -> None:
        """One look: what has changed is noted, what is loaded and to answer answers, the rest begins to come or go."""
        for name in self.versions.bundles:
            self.note(name)
        missing = [(name, one) for name, to in self.targets.items() for one in self.settle(name, to)]
        if self.described != self.swaps:
            self.described = self.swaps
            await asyncio.to_thread(self.describe, self.versions.resolve(next(iter(self.versions.current))))
        if missing and self.loading is None:
            self.loading = asyncio.create_task(self.load(*missing[0]))
        await self.let_go()

    def note(self, name: str) -> None:
        """Reads what is to be of a model, where that has changed."""
        now = self.registry.stamp(name)
        if name in self.targets and self.stamps[name] == now:
            return
        try:
            state, there = self.registry.read(name), self.registry.versions(name)
            if not present(state, there):
                raise RegistryError(f"{self.registry.home(name)}: holds no version that may answer")
        except (RankingError, OSError) as error:
            if self.stamps.get(name) != now:
                log.error("%s; what it said before goes on", error)
            self.stamps[name] = now
            return
        first, self.stamps[name] = name not in self.stamps, now
        to = self.targets[name] = target(name, state, there, self.keep, self.versions.current)
        for model in to.nameless:
            log.error("%s names no version; %s goes on", model, to.current[model])
        if not first:
            self.refused = {key: one for key, one in self.refused.items() if one.model != name}

    def settle(self, name: str, to: Target) -> list[str]:
        """Has requests that begin from now on get what is to be, as far as it is loaded. Returns what is missing.

        No request sees half of it: this is one step of the event loop.
        """
        versions = self.versions
        back = {key: bundle for key, (bundle, _) in self.leaving.items() if bundle.name == name}
        for key, bundle in back.items():
            if bundle.version in to.needed:
                del self.leaving[key]
                self.put(bundle)
        loaded = versions.bundles[name]
        current = {model: one for model, one in to.current.items() if one in loaded}
        rollouts = {model: one for model, one in versions.rollouts.items() if model != name}
        if to.rollout is not None and to.rollout.version in loaded:
            rollouts[name] = to.rollout
        changed = {model: one for model, one in current.items() if versions.current.get(model) != one}
        versions.current, versions.rollouts = {**versions.current, **current}, rollouts
        for model, one in changed.items():
            self.swaps += model in versions.wanted
            log.info("%s answers with version %s from now on", model, one)
        kept = {*to.needed, *(versions.current[model] for model in to.current if model in versions.current)}
        for version, bundle in [*loaded.items()]:
            if version not in kept:
                self.leaving[bundle.key] = bundle, self.clock() + self.grace_s
                self.put(bundle, away=True)
        missing = [one for one in to.needed if one not in versions.bundles[name] and not self.is_refused(name, one)]
        if not missing:
            versions.generations[name] = to.generation
        return missing

    def put(self, bundle: Bundle, *, away: bool = False) -> None:
        """Has requests find a version, or find it no more."""
        loaded = {**self.versions.bundles[bundle.name], bundle.version: bundle}
        if away:
            del loaded[bundle.version]
        in_order = dict(sorted(loaded.items(), key=lambda one: int(one[0])))
        self.versions.bundles = {**self.versions.bundles, bundle.name: in_order}

    async def load(self, name: str, version: str) -> None:
        """Brings a version in, or refuses it."""
        try:
            loaded = self.versions.bundles[name]
            sibling = loaded.get(next(iter(self.targets[name].current.values()), ""), next(iter(loaded.values())))
            newcomer = await self.entrance.bring_in(name, version, sibling, lambda one: self.reads.fits(one.fit))
            self.admit(newcomer)
        except Exception as error:  # noqa: BLE001 - whatever a user's model raises: the old one goes on
            expected = isinstance(error, RankingError | FeaturesError)
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            self.refused[name, version] = self.refusal(name, version, reason)
            log.error("%s@%s is refused: %s", name, version, reason)
        finally:
            self.loading = None
            self.wake.set()

    def admit(self, newcomer: Newcomer) -> None:
        """All that is read for it first; nobody asks for it before the next look."""
        self.put(newcomer.bundle)
        self.reads.take_in([newcomer.bundle.key], newcomer.fit, self.schemas())

    def schemas(self) -> list[ItemSchema]:
        return [bundle.manifest.item for bundle in self.versions.all()]

    async def let_go(self) -> None:
        """Drops the versions that no request can have any more, and gives their memory back."""
        now = self.clock()
        gone = [key for key, (_, until) in self.leaving.items() if until <= now]
        if not gone:
            return
        await self.entrance.engine.do(lambda desk: desk.leave(gone))
        for key in gone:
            del self.leaving[key]
        self.reads.let_go(gone, self.schemas())
        log.info("%s: not needed any more, and gone", ", ".join(gone))
        gc.collect()  # of what came after the start, which is little: the rest is frozen
        await asyncio.to_thread(give_back)

    def refusal(self, name: str, version: str, reason: str) -> Refused:
        return Refused(name, version, reason, datetime.now(UTC), self.manifest(name, version))

    def is_refused(self, name: str, version: str) -> bool:
        """Whether it was refused as it is now. Another manifest is another try."""
        one = self.refused.get((name, version))
        if one is not None and one.manifest != self.manifest(name, version):
            del self.refused[name, version]
            return False
        return one is not None

    def why_refused(self, name: str, version: str) -> str | None:
        """Why a version is not loaded though it should be; None where that is not so."""
        one = self.refused.get((name, version))
        return None if one is None else one.reason

    def manifest(self, name: str, version: str) -> Stamp:
        return stamp(self.registry.models / name / version / MANIFEST)

    def loaded(self) -> list[tuple[str, str]]:
        """The versions that may answer, each with its model."""
        return [(bundle.name, bundle.version) for bundle in self.versions.all()]


def stamp(path: Path) -> Stamp:
    """What changes when a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
