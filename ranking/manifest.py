"""A bundle's manifest: what it declares, and whether its files are those. Reading it needs no torch.

The layout of a bundle is in `ranking.bundle`.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from ranking.errors import BundleError
from ranking.schema import ItemSchema, UserSchema
from ranking.statistics import Statistics, check_statistics

MANIFEST = "manifest.json"


class FileDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    bytes: int


class ModuleSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which architecture, made with which keyword arguments, filled from which file of the bundle."""

    architecture: str
    config: dict[str, Any]
    file: str


class IndexRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the index is made: a faiss factory string (`Flat`, `IVF256,Flat`, …) and how many lists a search probes."""

    factory: str = "Flat"
    nprobe: int = 1
    metric: Literal["inner_product"] = "inner_product"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a bundle declares. `metrics` is what `endcap train` measured, by model and metric; `shop` the id of the data
    that it learned from, where it has one; `statistics` what its user inputs looked like there, by Feast reference
    (none in a bundle of before they were kept, or of a user's own without a sample)."""

    format: Literal[1]
    name: str
    version: str
    created_at: datetime
    user: UserSchema
    item: ItemSchema
    dimension: int
    user_tower: ModuleSpec
    ranker: ModuleSpec
    index: IndexRecipe
    metrics: dict[str, dict[str, float]]
    files: dict[str, FileDigest]
    shop: str = ""
    statistics: dict[str, Statistics] = {}


def versions(models: Path, name: str) -> list[str]:
    """The versions of a model on disk, oldest first."""
    home = models / name
    entries = home.iterdir() if home.is_dir() else ()
    found = [entry.name for entry in entries if entry.name.isdigit() and entry.is_dir()]
    return sorted(found, key=int)


def digest(path: Path) -> FileDigest:
    with path.open("rb") as file:
        return FileDigest(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def read_manifest(path: Path) -> Manifest:
    """Raises BundleError when the manifest is missing or is not one."""
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
        check_statistics(manifest.user, manifest.statistics)
        return manifest
    except FileNotFoundError as error:
        raise BundleError(path, "no such file", file=MANIFEST) from error
    except (msgspec.MsgspecError, ValueError, OSError) as error:
        raise BundleError(path, f"is damaged, or no manifest: {' '.join(str(error).split())}", file=MANIFEST) from error


def check_files(path: Path, manifest: Manifest) -> None:
    """Every declared file is there, whole and unchanged, and nothing else is. Raises BundleError."""
    try:
        present = {entry.name for entry in path.iterdir()} - {MANIFEST}
    except OSError as error:
        raise BundleError(path, error.strerror or str(error)) from error
    for name in sorted(manifest.files.keys() | present):
        if name not in manifest.files:
            raise BundleError(path, "is not in the manifest", file=name)
        if name not in present:
            raise BundleError(path, "is missing", file=name)
        found, declared = digest_of(path, name), manifest.files[name]
        if found != declared:
            what = (
                f"{found.bytes} bytes, the manifest says {declared.bytes}"
                if found.bytes != declared.bytes
                else f"SHA-256 {found.sha256[:12]}…, the manifest says {declared.sha256[:12]}…"
            )
            raise BundleError(path, what, file=name)


def digest_of(bundle: Path, name: str) -> FileDigest:
    """The digest of a file that lies in the bundle and nowhere else. Raises BundleError."""
    path = bundle / name
    if path.is_symlink() and path.resolve().parent != bundle.resolve():
        raise BundleError(bundle, f"is a link out of the bundle, to {path.readlink()}", file=name)
    if not path.is_file():  # one that waits for a writer would be read for ever
        raise BundleError(bundle, "is no file", file=name)
    try:
        return digest(path)
    except OSError as error:
        raise BundleError(bundle, f"cannot be read: {error.strerror or error}", file=name) from error
