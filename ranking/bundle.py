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

import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ranking.batch import SIGNALS
from ranking.errors import BundleError
from ranking.index import CpuIndex, ExactIndex, Index, open_index
from ranking.items import ItemTable, read_array, read_item_table
from ranking.lists import file
from ranking.manifest import (
    MANIFEST,
    FileDigest,
    Manifest,
    ModuleSpec,
    check_files,
    digest,
    read_manifest,
    versions,
)
from ranking.models import load_module
from ranking.scanned import ScannedIndex, open_lists

__all__ = [
    "MANIFEST", "Bundle", "FileDigest", "Manifest", "check_files", "digest", "lengths", "load_bundle", "now",
    "read_manifest", "versions", "write_bundle",
]  # fmt: skip
"""Whoever loads bundles finds the words of a manifest here as well."""

Told = Callable[[str, str], None]
"""Is told of each check that was passed: of what (a file, mostly), and what was found."""


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
        self.statistics = manifest.statistics
        self.changed_at = -inf

    @property
    def nprobe(self) -> int:
        """How many lists a search of the index looks into; 1 where it has none."""
        return self.index.nprobe

    @property
    def key(self) -> str:
        """What the engine knows this version by."""
        return f"{self.name}@{self.version}"


def write_bundle(models: Path, name: str, manifest: Callable[[str, dict[str, FileDigest]], Manifest],
                 write_files: Callable[[Path], None]) -> Path:  # fmt: skip
    """Writes the next version beside the others and renames it into place; a failure leaves nothing behind.

    `write_files` fills the directory; `manifest` then gets the version and the digests of what it wrote. Raises
    BundleError when the disk refuses, or when what was written does not load.
    """
    home = models / name
    made = [one for one in (home, models) if not one.exists()]
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
    except BundleError as error:
        place = str(error.bundle).replace(str(beside), f"{home / version} (not written)")
        raise BundleError(place, error.message, file=error.file) from error
    except OSError as error:
        raise BundleError(home / version, f"cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        with suppress(OSError):  # not empty
            for one in made:
                one.rmdir()


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def load_bundle(path: Path, passed: Told = lambda what, found: None) -> Bundle:
    """Loads and checks a bundle as a whole: hashes, shapes, dimensions, and one smoke batch through both models.

    Raises BundleError, which names the file and what differs.
    """
    manifest = read_manifest(path)
    passed(MANIFEST, f"{manifest.name}@{manifest.version}, made {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC")
    check_files(path, manifest)
    passed("files", f"{len(manifest.files)}, each of its SHA-256")
    items = read_item_table(path, manifest.item, manifest.dimension, manifest.created_at.timestamp())
    passed("items.parquet", f"{len(items):,} items, each id once")
    passed("embeddings.npy", f"{manifest.dimension} numbers an item, {lengths(items.embeddings)}")
    index = index_of(path, manifest, items.embeddings)
    passed("index.faiss", f"{manifest.index.factory}, of every item")
    neighbors, neighbor_scores = read_neighbors(path, len(items))
    passed("neighbors.npy", f"up to {neighbors.shape[1]} an item, all of the item table")
    shared = torch.from_numpy(np.ascontiguousarray(items.embeddings))
    modules = {}
    for module in (manifest.user_tower, manifest.ranker):
        modules[module.file] = loaded(path, manifest, module, shared)
        passed(module.file, module.architecture)
    user_tower, ranker = (modules[one.file] for one in (manifest.user_tower, manifest.ranker))
    bundle = Bundle(path, manifest, items, index, user_tower, ranker, neighbors, neighbor_scores)
    smoke(bundle)
    passed(
        "smoke batch", "both modules answer with numbers of the right shape, for the last word of each vocabulary too"
    )
    return bundle


def lengths(embeddings: npt.NDArray[np.float32]) -> str:
    """How long the vectors f32[N, E] are, N above 0: an inner product prefers long ones."""
    found = np.sqrt(np.einsum("ne,ne->n", embeddings, embeddings))
    least, most = float(found.min()), float(found.max())
    if abs(least - 1) < NEARLY and abs(most - 1) < NEARLY:
        return "of unit length"
    return f"of lengths {least:.3g} to {most:.3g}, not 1: long vectors are found more often"


NEARLY = 1e-3


def loaded(path: Path, manifest: Manifest, module: ModuleSpec, embeddings: torch.Tensor) -> nn.Module:
    if module.file not in manifest.files:
        raise BundleError(path, f"module file {module.file!r} is not among its files", file=MANIFEST)
    return load_module(module, path, embeddings)


def read_neighbors(path: Path, items: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Rows and scores [items, M]. Raises BundleError."""
    neighbors = read_array(path, "neighbors.npy", np.int32, (items, None))
    scores = read_array(path, "neighbor_scores.npy", np.float32, neighbors.shape)
    if neighbors.size and (neighbors.min() < -1 or neighbors.max() >= items):
        odd = neighbors[(neighbors < -1) | (neighbors >= items)][0]
        raise BundleError(path, f"names row {odd}, outside of the item table of {items}", file="neighbors.npy")
    if not np.isfinite(scores).all():
        raise BundleError(path, "has NaN or infinite values", file="neighbor_scores.npy")
    return neighbors, scores


def index_of(
    path: Path, manifest: Manifest, embeddings: npt.NDArray[np.float32]
) -> CpuIndex | ExactIndex | ScannedIndex:
    """The bundle's lists for our own scan, where it has them; else what faiss reads. Raises BundleError."""
    if file(path, "codes").name in manifest.files:
        try:
            return open_lists(path, embeddings, manifest.index.nprobe)
        except ValueError as error:
            raise BundleError(path, " ".join(str(error).split())) from error
    try:
        index = open_index(path / "index.faiss", embeddings, manifest.index.nprobe)
    except (OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise BundleError(path, f"is damaged, or no index that can be used: {said}", file="index.faiss") from error
    if index.shape != embeddings.shape:
        said = f"holds {index.shape[0]} vectors of {index.shape[1]} numbers, the item table {embeddings.shape[0]} of"
        raise BundleError(path, f"{said} {embeddings.shape[1]}", file="index.faiss")
    return index


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


def last_words(bundle: Bundle, inputs: list[torch.Tensor], of_items: bool) -> list[torch.Tensor]:
    """The same inputs with the highest code that each category has: a table of one row too few is found here and not
    by the first shopper of that word."""
    changed = list(inputs)
    changed[1] = torch.tensor([len(one.vocabulary) for one in bundle.schema.categorical]).expand_as(inputs[1])
    if of_items:
        most = torch.tensor([len(one.vocabulary) for one in bundle.manifest.item.categorical])
        changed[-2] = most.expand_as(inputs[-2])
    return changed


@torch.inference_mode()
def smoke(bundle: Bundle) -> None:
    """Made-up batches of two users through both models. Raises BundleError where one fails, answers with another shape
    or with what is no number, or answers the same twice in two ways."""
    user_inputs, ranker_inputs = made_up(bundle, 2, 3)
    tower, ranker = bundle.manifest.user_tower.file, bundle.manifest.ranker.file
    for what, change in (("a smoke batch", False), ("a smoke batch of the last word of each vocabulary", True)):
        file = tower
        try:
            given = last_words(bundle, user_inputs, False) if change else user_inputs
            users = bundle.user_tower(*given)
            check_output(bundle.path, file, users, (2, bundle.manifest.dimension))
            check_same(bundle.path, file, users, bundle.user_tower(*given))
            file = ranker
            given = [users, *(last_words(bundle, ranker_inputs, True) if change else ranker_inputs)]
            scores = bundle.ranker(*given)
            check_output(bundle.path, file, scores, (2, 3))
            check_same(bundle.path, file, scores, bundle.ranker(*given))
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise BundleError(bundle.path, f"fails on {what}: {' '.join(str(error).split())}", file=file) from error


def check_same(path: Path, file: str, once: torch.Tensor, again: torch.Tensor) -> None:
    if not torch.allclose(once, again, rtol=1e-4, atol=1e-6):
        said = "answers the same batch in two ways: was it exported in training mode, with its dropout?"
        raise BundleError(path, said, file=file)


def check_output(path: Path, file: str, output: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(output.shape) != shape:
        raise BundleError(path, f"answers a smoke batch with shape {tuple(output.shape)}, not {shape}", file=file)
    if not torch.isfinite(output).all():
        raise BundleError(path, "answers a smoke batch with NaN or infinity", file=file)
