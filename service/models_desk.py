"""What is asked over HTTP of models and their versions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from ranking.changes import known
from ranking.errors import RegistryBusy
from ranking.registry import Registry
from ranking.versions import Versions
from service.config import Config
from service.errors import DeadlineExceeded
from service.models_wire import Answering, Changed, ChangeRequest, ModelReport, ModelsReport
from service.registry import known_model, registry_of
from service.registry_change import Wanted, apart
from service.registry_report import report

T = TypeVar("T")

LAST = 50
"""Changes of each model's history that are told."""
READ_S = 10.0
"""The most that reading the registry may take."""


class ModelsDesk:
    """Reads the registry in a thread, and has changes made in a child. `loaded`: what this process answers with."""

    def __init__(self, directory: Path, config: Config, loaded: Callable[[], Versions]) -> None:
        self.directory, self.config, self.loaded = directory, config, loaded
        self.reading, self.changing = asyncio.Lock(), asyncio.Lock()

    @cached_property
    def registry(self) -> Registry:
        """Opened when it is asked for: an object store's client is large. Raises RegistryError."""
        return registry_of(self.directory, self.config)

    async def report(self) -> ModelsReport:
        """Raises RegistryError or DeadlineExceeded."""
        found = await self.in_time(lambda: [report(self.registry, name, LAST) for name in self.registry.names()])
        versions = self.loaded()
        placements = {
            name: Answering(one.model, versions.resolve(one.model).version)
            for name, one in self.config.placements.items()
        }
        return ModelsReport(
            [with_loaded(one, versions) for one in found],
            placements,
            versions.generations,
            os.getpid(),
            self.config.service.workers,
        )

    async def promote(self, name: str, version: str, asked: ChangeRequest, by: str) -> Changed:
        """Raises NoSuchVersion, RegistryBusy and other RegistryErrors, BundleError, DeadlineExceeded."""

        def look() -> None:
            known(version, known_model(self.registry, name))

        await self.in_time(look)  # so that a slip of the pen needs no child
        return await self.change(
            Wanted(str(self.directory), "promote", name, version, asked.alias, asked.why, by, asked.plan)
        )

    async def rollback(self, name: str, asked: ChangeRequest, by: str) -> Changed:
        """As `promote`."""
        await self.in_time(lambda: known_model(self.registry, name))
        return await self.change(Wanted(str(self.directory), "rollback", name, "", asked.alias, asked.why, by))

    async def change(self, wanted: Wanted) -> Changed:
        """One at a time: each loads a version of its own beside those that answer."""
        if self.changing.locked():
            raise RegistryBusy("another change is being checked; nothing was done")
        async with self.changing:
            return await apart(wanted)

    async def in_time(self, read: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(READ_S), self.reading:
                return await asyncio.to_thread(read)
        except TimeoutError as error:
            raise DeadlineExceeded(f"the registry could not be read in {READ_S:g} s") from error


def with_loaded(model: ModelReport, versions: Versions) -> ModelReport:
    here = versions.bundles.get(model.name, {})
    return replace(model, versions=[replace(one, loaded=one.version in here) for one in model.versions])
