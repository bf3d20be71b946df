"""What is said of models and their versions, on the command line and over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from ranking.bundle import Manifest
from ranking.errors import BundleError
from ranking.registry import PRODUCTION, Alias, Change, Registry, Rollout, State


class VersionReport(Struct, frozen=True):
    """A version that is there. `bytes`: what its files take; `metrics`: what was measured when it was trained, by
    ranking and metric; `damaged`: why nothing can be said of it. `loaded`: in the process that answers (over HTTP)."""

    version: str
    created_at: datetime | None
    items: int | None
    metrics: dict[str, dict[str, float]]
    bytes: int
    aliases: list[str]
    retired: bool
    loaded: bool | None = None
    damaged: str | None = None


class ModelReport(Struct, frozen=True):
    """`generation` counts the changes; `history` has the last of them, oldest first."""

    name: str
    where: str
    versions: list[VersionReport]
    aliases: dict[str, str]
    rollout: Rollout | None
    retired: list[str]
    generation: int
    history: list[Change]


class Answering(Struct, frozen=True):
    """What a placement answers with in the process that is asked: its `model` setting, and the version behind it."""

    model: str
    version: str


class ModelsReport(Struct, frozen=True):
    """The registry as it is now, and what the process that answers (`pid`, one of `workers`) has made of it.
    `generations`: of each model's aliases, as far as it has followed."""

    models: list[ModelReport]
    placements: dict[str, Answering]
    generations: dict[str, int]
    pid: int
    workers: int


class PromoteRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`why` is kept in the history."""

    alias: Alias = PRODUCTION
    why: Annotated[str, Meta(max_length=500)] = ""


class Promoted(Struct, frozen=True):
    """What stands now, and what did before. `changed` is false where it stood there already."""

    name: str
    alias: str
    version: str | None
    before: str | None
    generation: int
    changed: bool


NPY_HEAD = 128
"""Bytes before the numbers in a file of numpy's."""


def report(registry: Registry, name: str, last: int) -> ModelReport:
    """What there is of one model, with so many of the last changes. Raises RegistryError."""
    state = registry.read(name)
    found = [version_report(registry, name, version, state) for version in registry.versions(name)]
    return ModelReport(
        name, registry.home(name), found, state.aliases, state.rollout, state.retired, state.generation,
        state.history[-last:],
    )  # fmt: skip


def version_report(registry: Registry, name: str, version: str, state: State) -> VersionReport:
    size = registry.storage.size(name, version)
    aliases = [alias for alias, one in state.aliases.items() if one == version]
    retired = version in state.retired
    try:
        manifest = registry.manifest(name, version)
    except BundleError as error:
        return VersionReport(version, None, None, {}, size, aliases, retired, damaged=str(error))
    return VersionReport(version, manifest.created_at, items_of(manifest), manifest.metrics, size, aliases, retired)


def items_of(manifest: Manifest) -> int | None:
    """How many items a bundle has, by the size of its embeddings; None where it declares none."""
    declared = manifest.files.get("embeddings.npy")
    return None if declared is None else (declared.bytes - NPY_HEAD) // (4 * manifest.dimension)
