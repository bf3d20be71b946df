"""Ways to damage a bundle. Those that are `sealed` have the manifest name the files as they are then: what is left to
find is what they hold."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from ranking.bundle import MANIFEST, digest, read_manifest

DIMENSION = 16
RANKER = "torch.export/ranker/1"

Damage = Callable[[Path], object]


def both(*damages: Damage) -> Damage:
    def damage(bundle: Path) -> None:
        for one in damages:
            one(bundle)

    return damage


def folder(name: str) -> Damage:
    return both(lambda bundle: (bundle / name).unlink(), lambda bundle: (bundle / name).mkdir())


def pipe(name: str) -> Damage:
    return both(lambda bundle: (bundle / name).unlink(), lambda bundle: os.mkfifo(bundle / name))


def sprung(bundle: Path) -> Path:
    """The file that a pickle writes when it is executed."""
    return bundle.parents[2] / "sprung"


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.sprung, "sprung")


def seal(bundle: Path, **changes: Any) -> None:
    """Has the manifest name the files as they are now: what is left to find is what they hold."""
    manifest = read_manifest(bundle)
    files = {one.name: digest(one) for one in sorted(bundle.iterdir()) if one.name != MANIFEST}
    changed = msgspec.structs.replace(manifest, **{"files": files, **changes})
    (bundle / MANIFEST).write_bytes(msgspec.json.encode(changed))


def sealed(damage: Damage) -> Damage:
    return both(damage, seal)


def declared(**changes: Any) -> Damage:
    return lambda bundle: seal(bundle, **changes)


def flip(bundle: Path) -> None:
    path = bundle / "ranker.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(name: str) -> Damage:
    def damage(bundle: Path) -> None:
        content = (bundle / name).read_bytes()
        (bundle / name).write_bytes(content[: len(content) // 2])

    return damage


def written(name: str, content: bytes) -> Damage:
    def damage(bundle: Path) -> None:
        (bundle / name).write_bytes(content)

    return damage


def linked_out(bundle: Path) -> None:
    outside = bundle.parents[2] / "elsewhere.npy"
    (bundle / "embeddings.npy").rename(outside)
    (bundle / "embeddings.npy").symlink_to(outside)


def column(name: str, change: Callable[[list[Any]], list[Any]], kind: pa.DataType | None = None) -> Damage:
    def damage(bundle: Path) -> None:
        table = pq.read_table(bundle / "items.parquet")
        place = table.column_names.index(name)
        values = pa.array(change(table[name].to_pylist()), kind or table.schema.field(name).type)
        pq.write_table(table.set_column(place, name, values), bundle / "items.parquet")

    return sealed(damage)


def array(name: str, change: Callable[[Any], Any]) -> Damage:
    def damage(bundle: Path) -> None:
        np.save(bundle / name, change(np.load(bundle / name)))

    return sealed(damage)


def put(row: int, value: float) -> Callable[[Any], Any]:
    def change(found: Any) -> Any:
        found[row, 0] = value
        return found

    return change


def pickled(name: str) -> Damage:
    return sealed(lambda bundle: (bundle / name).write_bytes(pickle.dumps(Trap(sprung(bundle)))))


def torch_saved(name: str) -> Damage:
    return sealed(lambda bundle: torch.save(Trap(sprung(bundle)), bundle / name))


def objects(bundle: Path) -> None:
    """A `.npy` file of objects, which numpy would unpickle."""
    np.save(bundle / "neighbors.npy", np.array([[Trap(sprung(bundle))]], object), allow_pickle=True)


def program(bundle: Path) -> Path:
    class Products(torch.nn.Module):
        def forward(self, user: torch.Tensor, item_embedding: torch.Tensor) -> torch.Tensor:
            return (user.unsqueeze(1) * item_embedding).sum(-1)

    given = {"user": torch.zeros(3, DIMENSION), "item_embedding": torch.zeros(3, 7, DIMENSION)}
    users, candidates = torch.export.Dim("users", max=99), torch.export.Dim("candidates", max=999)
    shapes = {"user": {0: users}, "item_embedding": {0: users, 1: candidates}}
    path = bundle / "ranker.pt2"
    torch.export.save(torch.export.export(Products(), (), kwargs=given, dynamic_shapes=shapes), path)
    (bundle / "ranker.safetensors").unlink()
    return path


def with_program(change: Callable[[Path], None]) -> Damage:
    """The ranker is a program as torch writes it, and then `change` is done to its file."""

    def damage(bundle: Path) -> None:
        change(program(bundle))
        manifest = read_manifest(bundle)
        module = msgspec.structs.replace(manifest.ranker, architecture=RANKER, config={}, file="ranker.pt2")
        seal(bundle, ranker=module)

    return damage


def entry(wanted: str, content: Callable[[Path], bytes], beside: str = "") -> Damage:
    """An archive in which the entry `wanted` holds something else, or another one is `beside` it."""

    def change(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        (name,) = (one for one in entries if wanted in one)
        entries[name.replace(wanted, beside or wanted)] = content(path)
        with zipfile.ZipFile(path, "w") as archive:
            for one, held in entries.items():
                archive.writestr(one, held)

    return with_program(change)


def saved_trap(path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save((Trap(sprung(path.parent)), {}), buffer)
    return buffer.getvalue()


def plain_trap(path: Path) -> bytes:
    return pickle.dumps(Trap(sprung(path.parent)))


def index_of(rows: int, width: int, metric: int = faiss.METRIC_INNER_PRODUCT) -> Damage:
    """A bundle that faiss searches, with another index."""

    def damage(bundle: Path) -> None:
        for one in bundle.glob("scan_*.npy"):
            one.unlink()
        index = faiss.index_factory(width, "Flat", metric)
        index.add(np.zeros((rows, width), np.float32))
        faiss.write_index(index, str(bundle / "index.faiss"))

    return sealed(damage)


def one_word_too_few(bundle: Path) -> None:
    """The user tower's table of countries has no row for the last of them."""
    manifest = read_manifest(bundle)
    tower = manifest.user_tower
    sizes = list(tower.config["categorical"])
    weights = load_file(bundle / tower.file)
    name = "codes.tables.0.weight"
    weights[name] = weights[name][:-1].clone()
    save_file(weights, bundle / tower.file)
    config = {**tower.config, "categorical": [sizes[0] - 1, *sizes[1:]]}
    seal(bundle, user_tower=msgspec.structs.replace(tower, config=config))


def module_elsewhere(bundle: Path) -> None:
    shutil.copy(bundle / "ranker.safetensors", bundle.parent / "ranker.safetensors")
    ranker = msgspec.structs.replace(read_manifest(bundle).ranker, file="../ranker.safetensors")
    seal(bundle, ranker=ranker)


def unknown_architecture(bundle: Path) -> None:
    seal(bundle, ranker=msgspec.structs.replace(read_manifest(bundle).ranker, architecture="resnet"))
