"""What the registry holds, for people and programs."""

from __future__ import annotations

import msgspec

from ranking.bundle import Manifest
from ranking.errors import BundleError
from ranking.registry import Registry, State
from service.models_wire import ChangeReport, ModelReport, VersionReport

NPY_HEAD = 128
"""Bytes before the numbers in a file of numpy's."""


def report(registry: Registry, name: str, last: int) -> ModelReport:
    """What there is of one model, with so many of the last changes. Raises RegistryError."""
    state = registry.read(name)
    return ModelReport(
        name,
        registry.home(name),
        [version_report(registry, name, version, state) for version in registry.versions(name)],
        state.aliases,
        None if state.rollout is None else msgspec.to_builtins(state.rollout),
        state.retired,
        state.generation,
        [msgspec.convert(one, ChangeReport, from_attributes=True) for one in state.history[-last:]],
    )


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
