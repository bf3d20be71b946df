"""Which bundle a command means: a directory, or a version of one of the deployment's models."""

from __future__ import annotations

import os
from pathlib import Path

from features.errors import InputError
from ranking.manifest import MANIFEST, versions
from service.deployment import Deployment


def bundle_at(directory: Path, named: str) -> Path:
    """The directory of a bundle that is named by its path, or as `name` (the newest) or `name@version` of the
    deployment in `directory`. Raises InputError where there is none, and ConfigError where there is no deployment."""
    path = Path(named)
    if os.sep in named or (path / MANIFEST).is_file():
        if not path.is_dir():
            raise InputError("no such directory", file=path)
        return path
    here = Deployment.at(directory)
    name, _, version = named.partition("@")
    present = versions(here.models, name)
    if not present or (version and version not in present):
        known = ", ".join(present) or "none"
        raise InputError(f"no such version; there are: {known}", file=here.models / name / version)
    return here.models / name / (version or present[-1])
