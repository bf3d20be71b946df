"""Which bundle a command means: a directory, or a version of one of the deployment's models."""

from __future__ import annotations

import os
from pathlib import Path

from features.errors import InputError
from ranking.manifest import MANIFEST
from ranking.registry import open_registry, stands_for
from service.deployment import Deployment


def bundle_at(directory: Path, named: str) -> Path:
    """The directory of a bundle named by its path, or as a model of the deployment in `directory`: `name` (what
    stands for it), `name@version` (retired or not) or `name@alias`. Raises InputError where there is none,
    RegistryError, and ConfigError where there is no deployment."""
    path = Path(named)
    if os.sep in named or (path / MANIFEST).is_file():
        if not path.is_dir():
            raise InputError("no such directory", file=path)
        return path
    here = Deployment.at(directory)
    models = here.config.models
    registry = open_registry(models.directory, directory, directory / models.cache)
    name, _, which = named.partition("@")
    state, there = registry.read(name), registry.versions(name)
    version = stands_for(state, there, which) or (which if which in there else None)
    if version is None:
        known = ", ".join([*there, *state.aliases]) or "none"
        raise InputError(f"no such version; there are: {known}", file=f"{registry.home(name)}/{which}".rstrip("/"))
    return registry.fetch(name, version)
