"""`endcap bundle pack`: a user's own torch modules, item table and index become a bundle. docs/bring-your-own-model.md.

What to pack is said in a TOML file; the paths in it are relative to it. Everything is checked while it is packed, and
the whole is loaded once as a check, so that a bundle that was written is one that serves.
"""

from __future__ import annotations

import math
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import torch
from msgspec import Meta, Struct

from ranking.batch import SIGNALS
from ranking.bundle import FileDigest, Manifest, now, write_bundle
from ranking.errors import BundleError
from ranking.exported import callable_of
from ranking.index import IndexRecipe, build_index, read_index, write_index, write_lists
from ranking.lowered import NotLowered, save_lowered
from ranking.models import EXPORTED, LOWERED, ModuleSpec
from ranking.packed_items import PackedItems, read_items
from ranking.packed_modules import ModuleSource, program_of
from ranking.packed_statistics import read_statistics
from ranking.schema import Categorical, Dense, History, ItemSchema, Transform, UserSchema, check_references

TOWER, RANKER = "torch.export/user_tower/1", "torch.export/ranker/1"
STEMS = {TOWER: "user_tower", RANKER: "ranker"}


AUTO = "auto"


class DenseInput(Struct, frozen=True, forbid_unknown_fields=True):
    """A column of `dense`: `(transform(x) - mean) * scale`. What is missing becomes `default`, before the transform; if
    that is left out, the value for which the model sees 0."""

    source: str
    transform: Transform = "identity"
    mean: float = 0.0
    scale: float = 1.0
    default: float | None = None
    vocabulary: tuple[str, ...] | None = None


class CategoricalInput(Struct, frozen=True, forbid_unknown_fields=True):
    """A column of `categorical`: a word's place in the vocabulary and one more; 0 for every other."""

    source: str
    vocabulary: tuple[str, ...]


class HistoryInput(Struct, frozen=True, forbid_unknown_fields=True):
    """The list of item ids behind `history`."""

    source: str
    length: Annotated[int, Meta(ge=1, le=10_000)]


class UserInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """What is read of a shopper, by Feast reference (`view:feature`) out of one feature service."""

    feature_service: str
    history: HistoryInput
    dense: tuple[DenseInput, ...] = ()
    categorical: tuple[CategoricalInput, ...] = ()
    purchased: str | None = None


class ItemInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The item table's file and which of its columns are what; those left out are filled (title: the id, category: "",
    price: unknown, in stock: yes, popularity: 0). `source` in `dense` and `categorical` names a column."""

    file: str
    id: str = "item_id"
    embedding: str = "embedding"
    title: str | None = None
    category: str | None = None
    price: str | None = None
    in_stock: str | None = None
    popularity: str | None = None
    dense: tuple[DenseInput, ...] = ()
    categorical: tuple[CategoricalInput, ...] = ()


class IndexInput(Struct, frozen=True, forbid_unknown_fields=True):
    """A ready faiss index over the embeddings in the table's order (`file`), or the recipe for one (`factory`): a faiss
    factory string, or AUTO for what `ranking.tune` finds to be the cheapest, which is `endcap bundle pack`'s to do."""

    file: str | None = None
    factory: str = "Flat"
    nprobe: Annotated[int, Meta(ge=1)] = 1


class StatisticsInput(Struct, frozen=True, forbid_unknown_fields=True):
    """A sample of what the model was trained on: a Parquet file with a column for each user input."""

    file: str


class PackSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """All of a pack file."""

    user: UserInputs
    items: ItemInputs
    user_tower: ModuleSource
    ranker: ModuleSource
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "default"
    index: IndexInput = IndexInput()
    statistics: StatisticsInput | None = None


def read_spec(path: Path) -> PackSpec:
    """Raises BundleError, one line that names the file and the setting."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), PackSpec)
    except OSError as error:
        raise BundleError(path, error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(path, str(error)) from error
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$")
        raise BundleError(path, text, file=place.rstrip("`").lstrip(".") or "top level") from error


def pack(
    spec_path: Path, spec: PackSpec, types: Mapping[str, str], max_age_s: Mapping[str, float | None], models: Path
) -> Path:
    """Writes the next version of the model under `models` and returns its directory.

    `types` (Feast reference -> Feast type) and `max_age_s` (view -> seconds) are what the registry says of the feature
    service. Raises BundleError, one line; nothing is left behind then.
    """
    base = spec_path.parent
    user, item = schemas(spec_path, spec, types, max_age_s)
    items = read_items(base / spec.items.file, spec.items, item)
    statistics = {} if spec.statistics is None else read_statistics(base / spec.statistics.file, user)
    examples = example_inputs(user, item, items.embeddings.shape[1])
    programs = {
        kind: program_of(source, base, EXPORTED[kind][1], examples, f"{spec_path}: {name}")
        for kind, name, source in ((TOWER, "user_tower", spec.user_tower), (RANKER, "ranker", spec.ranker))
    }

    modules: dict[str, ModuleSpec] = {}

    def write_files(directory: Path) -> None:
        pq.write_table(items.table, directory / "items.parquet")
        np.save(directory / "embeddings.npy", items.embeddings)
        np.save(directory / "neighbors.npy", np.zeros((len(items.embeddings), 0), np.int32))
        np.save(directory / "neighbor_scores.npy", np.zeros((len(items.embeddings), 0), np.float32))
        lay_index(spec.index, base, items, directory)
        for kind, program in programs.items():
            modules[kind] = write_program(program, kind, directory)

    def manifest(version: str, files: dict[str, FileDigest]) -> Manifest:
        return Manifest(
            format=1, name=spec.name, version=version, created_at=now(), user=user, item=item,
            dimension=items.embeddings.shape[1], user_tower=modules[TOWER], ranker=modules[RANKER],
            index=IndexRecipe(spec.index.factory, spec.index.nprobe),
            metrics={}, files=files, statistics=statistics,
        )  # fmt: skip

    return write_bundle(models, spec.name, manifest, write_files)


def write_program(program: Any, kind: str, directory: Path) -> ModuleSpec:
    """As data where it can be (`ranking.lowered`), else as torch writes it."""
    as_data, as_torch = f"{STEMS[kind]}.safetensors", f"{STEMS[kind]}.pt2"
    try:
        inputs = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
        save_lowered(callable_of(program, as_torch), inputs, directory / as_data)
    except NotLowered:
        torch.export.save(program, directory / as_torch)
        return ModuleSpec(kind, {}, as_torch)
    (architecture,) = (one for one, exported in LOWERED.items() if exported == kind)
    return ModuleSpec(architecture, {}, as_data)


def schemas(
    path: Path, spec: PackSpec, types: Mapping[str, str], max_age_s: Mapping[str, float | None]
) -> tuple[UserSchema, ItemSchema]:
    """The inputs with the types that Feast and the item table give them."""
    asked = spec.user
    inputs: list[DenseInput | CategoricalInput | HistoryInput] = [*asked.dense, *asked.categorical, asked.history]
    sources = [one.source for one in inputs]
    wanted = [*sources, *([asked.purchased] if asked.purchased else [])]
    if complaints := check_references({one: types.get(one, "") for one in wanted}, types):
        raise BundleError(path, complaints[0], file="user")
    user = UserSchema(
        feature_service=asked.feature_service,
        dense=tuple(dense(one, types[one.source]) for one in asked.dense),
        categorical=tuple(Categorical(one.source, types[one.source], one.vocabulary) for one in asked.categorical),
        history=History(asked.history.source, types[asked.history.source], asked.history.length),
        purchased=asked.purchased,
        max_age_s={view: max_age_s.get(view) for view in dict.fromkeys(one.partition(":")[0] for one in wanted)},
    )
    item = ItemSchema(
        dense=tuple(dense(one, "") for one in spec.items.dense),
        categorical=tuple(Categorical(one.source, "", one.vocabulary) for one in spec.items.categorical),
    )
    return user, item


def dense(one: DenseInput, kind: str) -> Dense:
    seen_as_0 = math.expm1(one.mean) if one.transform == "log1p" else one.mean  # before the transform
    default = seen_as_0 if one.default is None else one.default
    return Dense(one.source, kind, one.transform, one.mean, one.scale, default, one.vocabulary)


def example_inputs(user: UserSchema, item: ItemSchema, dimension: int) -> dict[str, torch.Tensor]:
    """Every input that a module may ask for, of 3 users and 7 candidates."""
    users, candidates, length = 3, 7, user.history.length
    history = torch.zeros(users, length, dtype=torch.int64)
    shape = (users, candidates)
    return {
        "dense": torch.zeros(users, len(user.dense)),
        "categorical": torch.zeros(users, len(user.categorical), dtype=torch.int64),
        "history": history,
        "history_embeddings": torch.zeros(users, length, dimension),
        "history_mask": history >= 0,
        "user": torch.zeros(users, dimension),
        "rows": torch.zeros(shape, dtype=torch.int64),
        "item_embedding": torch.zeros(*shape, dimension),
        "item_dense": torch.zeros(*shape, len(item.dense)),
        "item_categorical": torch.zeros(*shape, len(item.categorical), dtype=torch.int64),
        "signals": torch.zeros(*shape, len(SIGNALS)),
    }


def lay_index(spec: IndexInput, base: Path, items: PackedItems, directory: Path) -> None:
    """Copies the ready index, or makes one, and what our own scan needs of it. Whether it fits the table is checked
    when the bundle is loaded."""
    path = directory / "index.faiss"
    try:
        if spec.file is None:
            index = build_index(items.embeddings, IndexRecipe(spec.factory, spec.nprobe))
            write_index(index, path)
        else:
            index = read_index(base / spec.file)
            shutil.copyfile(base / spec.file, path)
        write_lists(index, items.embeddings, directory)
    except (OSError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise BundleError(base / spec.file if spec.file else spec.factory, f"no usable index: {said}") from error
