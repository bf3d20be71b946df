"""A bundle: one directory that holds one version of a model, written and checked as a whole.

models/<name>/<version>/
  manifest.json            everything below, declared, and the SHA-256 of every other file
  user_tower.safetensors   ranker.safetensors
  items.parquet            the item table's columns        embeddings.npy       float32[N, E], unit length
  index.faiss              over the embeddings             neighbors.npy        int32[N, M], co-visited rows, -1 empty
  scan_*.npy               the same for our own scan,      neighbor_scores.npy  float32[N, M]
                           where it searches such an index (`ranking.lists`)
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ranking.batch import SIGNALS
from ranking.errors import BundleError
from ranking.index import CpuIndex, ExactIndex, Index, IndexRecipe, open_index
from ranking.items import ItemTable, read_item_table
from ranking.lists import file
from ranking.models import ModuleSpec, load_module
from ranking.scanned import ScannedIndex, open_lists
from ranking.schema import ItemSchema, UserSchema
from ranking.shareable import mapped

MANIFEST = "manifest.json"


class FileDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a bundle declares. `metrics` is what `endcap train` measured, by model and metric; `shop` the id of the data
    that it learned from, where it has one."""

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


class Bundle:
    """A loaded bundle. Read-only; one engine serves it, and keeps the item table up to date: `changed_at` is when the
    newest change of an item that is in it was said, in seconds since the epoch."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        items: ItemTable,
        index: Index,
        user_tower: nn.Module,
        ranker: nn.Module,
        neighbors: npt.NDArray[np.int32],
        neighbor_scores: npt.NDArray[np.float32],
    ) -> None:
        self.path, self.manifest, self.items, self.index = path, manifest, items, index
        self.user_tower, self.ranker = user_tower, ranker
        self.neighbors, self.neighbor_scores = neighbors, neighbor_scores
        self.name, self.version, self.schema = manifest.name, manifest.version, manifest.user
        self.changed_at = -inf

    @property
    def nprobe(self) -> int:
        """How many lists a search of the index looks into; 1 where it has none."""
        return self.index.nprobe

    @property
    def key(self) -> str:
        """What the engine knows this version by."""
        return f"{self.name}@{self.version}"


def versions(models: Path, name: str) -> list[str]:
    """The versions of a model on disk, oldest first."""
    home = models / name
    entries = home.iterdir() if home.is_dir() else ()
    found = [entry.name for entry in entries if entry.name.isdigit() and entry.is_dir()]
    return sorted(found, key=int)


def write_bundle(models: Path, name: str, manifest: Callable[[str, dict[str, FileDigest]], Manifest],
                 write_files: Callable[[Path], None]) -> Path:  # fmt: skip
    """Writes the next version beside the others and renames it into place; a failure leaves nothing behind.

    `write_files` fills the directory; `manifest` then gets the version and the digests of what it wrote. Raises
    BundleError when the disk refuses, or when what was written does not load.
    """
    home = models / name
    home.mkdir(parents=True, exist_ok=True)
    version = str(int((versions(models, name) or ["0"])[-1]) + 1)
    beside = home / f".{version}.partial"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        write_files(beside)
        files = {entry.name: digest(entry) for entry in sorted(beside.iterdir())}
        encoded = msgspec.json.format(msgspec.json.encode(manifest(version, files)), indent=1)
        (beside / MANIFEST).write_bytes(encoded)
        load_bundle(beside)
        return beside.rename(home / version)
    except OSError as error:
        raise BundleError(home / version, f"cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def digest(path: Path) -> FileDigest:
    with path.open("rb") as file:
        return FileDigest(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def read_manifest(path: Path) -> Manifest:
    """Raises BundleError when the manifest is missing or is not one."""
    try:
        return msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise BundleError(path, "no such file", file=MANIFEST) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
        raise BundleError(path, f"is damaged, or no manifest: {error}", file=MANIFEST) from error


def load_bundle(path: Path) -> Bundle:
    """Loads and checks a bundle as a whole: hashes, shapes, dimensions, and one smoke batch through both models.

    Raises BundleError, which names the file and what differs.
    """
    manifest = read_manifest(path)
    check_files(path, manifest)
    try:
        items = read_item_table(path, manifest.item, manifest.dimension, manifest.created_at.timestamp())
        neighbors, neighbor_scores = mapped(path / "neighbors.npy"), mapped(path / "neighbor_scores.npy")
        index = index_of(path, manifest, items.embeddings)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BundleError(path, " ".join(str(error).split())) from error
    if index.shape != (len(items), manifest.dimension):
        raise BundleError(path, f"holds {index.shape}, the item table {items.embeddings.shape}", file="index.faiss")
    if neighbors.shape != neighbor_scores.shape or len(neighbors) != len(items):
        raise BundleError(path, f"{neighbors.shape} rows for {len(items)} items", file="neighbors.npy")
    if neighbors.size and (neighbors.min() < -1 or neighbors.max() >= len(items)):
        raise BundleError(path, "names a row outside of the item table", file="neighbors.npy")
    shared = torch.from_numpy(np.ascontiguousarray(items.embeddings))
    user_tower = load_module(manifest.user_tower, path, shared)
    ranker = load_module(manifest.ranker, path, shared)
    bundle = Bundle(path, manifest, items, index, user_tower, ranker, neighbors, neighbor_scores)
    smoke(bundle)
    return bundle


def index_of(
    path: Path, manifest: Manifest, embeddings: npt.NDArray[np.float32]
) -> CpuIndex | ExactIndex | ScannedIndex:
    """The bundle's lists for our own scan, where it has them; else what faiss reads."""
    if file(path, "codes").name in manifest.files:
        return open_lists(path, embeddings, manifest.index.nprobe)
    return open_index(path / "index.faiss", embeddings, manifest.index.nprobe)


def made_up(bundle: Bundle, batch: int, candidates: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Inputs of the right shapes and types: those of the user tower, and those of the ranker after the user vectors."""
    user, items = bundle.schema, bundle.items
    dense = torch.zeros(batch, len(user.dense))
    categorical = torch.zeros(batch, len(user.categorical), dtype=torch.int64)
    history = torch.full((batch, user.history.length), -1)
    history[0, -1] = 0  # one user with a history, the others without
    rows = (torch.arange(candidates) % len(items)).repeat(batch, 1)
    at = rows.numpy()
    facts = [torch.from_numpy(table[at]) for table in (items.embeddings, items.dense, items.categorical)]
    users = [dense, categorical, history]
    return users, [*users, rows, *facts, torch.zeros(batch, candidates, len(SIGNALS))]


@torch.inference_mode()
def smoke(bundle: Bundle) -> None:
    """One made-up batch of two users through both models. Raises BundleError where one fails, or answers with another
    shape or with what is no number."""
    user_inputs, ranker_inputs = made_up(bundle, 2, 3)
    file = bundle.manifest.user_tower.file
    try:
        users = bundle.user_tower(*user_inputs)
        check_output(bundle.path, file, users, (2, bundle.manifest.dimension))
        file = bundle.manifest.ranker.file
        check_output(bundle.path, file, bundle.ranker(users, *ranker_inputs), (2, 3))
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        raise BundleError(bundle.path, f"fails on a smoke batch: {' '.join(str(error).split())}", file=file) from error


def check_output(path: Path, file: str, output: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(output.shape) != shape:
        raise BundleError(path, f"answers a smoke batch with shape {tuple(output.shape)}, not {shape}", file=file)
    if not torch.isfinite(output).all():
        raise BundleError(path, "answers a smoke batch with NaN or infinity", file=file)


def check_files(path: Path, manifest: Manifest) -> None:
    """Every declared file is there, whole and unchanged, and nothing else is. Raises BundleError."""
    present = {entry.name for entry in path.iterdir()} - {MANIFEST}
    for name in sorted(manifest.files.keys() | present):
        if name not in manifest.files:
            raise BundleError(path, "is not in the manifest", file=name)
        if name not in present:
            raise BundleError(path, "is missing", file=name)
        found, declared = digest(path / name), manifest.files[name]
        if found != declared:
            what = (
                f"{found.bytes} bytes, the manifest says {declared.bytes}"
                if found.bytes != declared.bytes
                else f"SHA-256 {found.sha256[:12]}…, the manifest says {declared.sha256[:12]}…"
            )
            raise BundleError(path, what, file=name)
