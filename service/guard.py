"""A promotion in steps, watched: the next step where every rule is kept, back to production where one is not.

The service guards itself, so that a promotion neither needs nor outlives whoever began it: one process of a deployment
(`held` by a lock) looks once a second at what all workers have counted since the step began, takes the next step, or
goes back, and writes which rule, when and with which figures into the registry's history.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TextIO

from ranking.errors import RegistryError
from ranking.registry import Registry, Rollout, State, abandon, share_of, step
from service.guarded import Seen, seen
from service.workers_metrics import Family

log = logging.getLogger(__name__)

EVERY_S = 1.0
LOCK = ".guard.lock"
BY = "guard"


@dataclass(slots=True)
class Step:
    """The step that is watched, and what had been counted when it began."""

    rollout: Rollout
    began: float
    before: Seen
    control_before: Seen


class Guard:
    """Watches the rollouts of `models`. `counted` gives what all workers have counted, `refused` why a version is not
    loaded though it should be, `clock` seconds. `writable`: where changes are made, if not in `registry`, which is then
    a copy of it."""

    def __init__(
        self,
        registry: Registry,
        models: Iterable[str],
        counted: Callable[[], list[Family]],
        refused: Callable[[str, str], str | None] = lambda name, version: None,
        clock: Callable[[], float] = time.monotonic,
        writable: Callable[[], Registry] | None = None,
    ) -> None:
        self.registry, self.models, self.counted = registry, list(models), counted
        self.refused, self.clock, self.writable = refused, clock, writable
        self.steps: dict[str, Step] = {}
        self.locks: dict[str, TextIO] = {}
        self.task: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """One look at every model: takes a step, goes back, or waits."""
        for name in self.models:
            try:
                await self.look_at(name)
            except RegistryError as error:  # somebody else changes it just now, or the disk refuses: look again
                log.warning("the rollout of %s waits: %s", name, error)

    async def look_at(self, name: str) -> None:
        state = self.registry.read(name)
        rollout = state.rollout
        if rollout is None or rollout.plan is None:
            self.steps.pop(name, None)
            self.let_go(name)
            return
        if not self.mine(name):
            return
        if (reason := self.refused(name, rollout.version)) is not None:
            await self.go_back(name, state, f"it cannot be loaded: {reason}")
            return
        families = self.counted()
        now, control = seen(families, name, rollout.version, "rollout"), seen(families, name, None, "control")
        watched = self.steps.get(name)
        if watched is None or watched.rollout != rollout:
            self.steps[name] = Step(rollout, self.clock(), now, control)
            return
        found, beside = now - watched.before, control - watched.control_before
        if broken := found.breach(rollout.plan.rules, rollout.plan.least):
            await self.go_back(name, state, f"{broken} {at(rollout, found)}{compared(beside)}")
        elif self.enough(watched, found):
            await self.go_on(name, state, f"kept every rule {at(rollout, found)}: {found.text()}")

    async def go_back(self, name: str, state: State, why: str) -> None:
        assert state.rollout is not None
        version = state.rollout.version
        await self.change(name, state, lambda now: abandon(now, by=BY, why=why))
        self.let_go(name)
        log.error("%s@%s is rolled back: %s", name, version, why)

    async def go_on(self, name: str, state: State, why: str) -> None:
        after = await self.change(name, state, lambda now: step(now, by=BY, why=why))
        if after.rollout is None:
            self.let_go(name)
        share = after.rollout.share if after.rollout else 1.0
        log.info("%s: %s of the shoppers get version %s: %s", name, share_of(share), after.history[-1].version, why)

    def enough(self, watched: Step, found: Seen) -> bool:
        """Whether the step was held long enough, and enough was seen of what every rule asks."""
        rollout, plan = watched.rollout, watched.rollout.plan
        assert plan is not None
        if found.answers < plan.least or self.clock() - watched.began < plan.hold_s:
            return False
        return not found.lacking(plan.rules, plan.least, alone=rollout.share >= 1)

    async def change(self, name: str, seen: State, edit: Callable[[State], State]) -> State:
        """Raises RegistryError, also where the state is not the one that was seen any more."""
        if self.writable is None:
            return self.registry.change(name, edit, generation=seen.generation)
        writable = self.writable

        def far() -> State:
            return writable().change(name, edit, generation=seen.generation)

        return await asyncio.to_thread(far)

    def mine(self, name: str) -> bool:
        """Whether this process guards this model's rollout: the first that asks does, until it ends."""
        if name in self.locks:
            return True
        file = (self.registry.models / name / LOCK).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self.locks[name] = file
        return True

    def let_go(self, name: str) -> None:
        if (file := self.locks.pop(name, None)) is not None:
            file.close()

    def start(self) -> None:
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.look()
            except Exception:
                log.exception("the guard of promotions")  # a mistake of ours; shoppers must not pay for it

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        for name in list(self.locks):
            self.let_go(name)


def at(rollout: Rollout, found: Seen) -> str:
    return f"at {share_of(rollout.share)}, after {found.answers:,.0f} answers"


def compared(control: Seen) -> str:
    """What production did meanwhile, for those who ask whether it was the version's fault."""
    return f"; production meanwhile: {control.text()}" if control.answers else ""
