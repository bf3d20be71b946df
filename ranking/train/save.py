"""A trained model, and how it becomes a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ranking.bundle import FileDigest, Manifest, now, write_bundle
from ranking.index import IndexRecipe, build_index, write_index, write_lists
from ranking.models import ModuleSpec, save_module
from ranking.ranker import Ranker
from ranking.schema import ItemSchema, UserSchema
from ranking.statistics import Statistics
from ranking.towers import UserTower

USER_TOWER, RANKER = "user_tower.safetensors", "ranker.safetensors"


@dataclass(frozen=True, slots=True)
class Trained:
    """What training makes. `items` has the bundle's columns (`ranking.items.COLUMNS` and those of the schema).

    `tower_config` and `ranker_config` are the keyword arguments that built the modules, but for the embeddings;
    `statistics` are of the user inputs that it learned from.
    """

    user: UserSchema
    item: ItemSchema
    items: pa.Table
    embeddings: npt.NDArray[np.float32]  # [N, E], unit length
    tower: UserTower
    tower_config: dict[str, Any]
    ranker: Ranker
    ranker_config: dict[str, Any]
    neighbors: npt.NDArray[np.int32]  # [N, M], -1 empty
    neighbor_scores: npt.NDArray[np.float32]  # [N, M]
    index: IndexRecipe
    statistics: Mapping[str, Statistics] = field(default_factory=dict)


def save(trained: Trained, models: Path, name: str, metrics: Mapping[str, Mapping[str, float]], shop: str = "") -> Path:
    """Writes the next version of model `name` under `models` and loads it once as a check. Returns its directory.

    Raises BundleError when what was written does not load; nothing is left behind then.
    """

    def write_files(directory: Path) -> None:
        pq.write_table(trained.items, directory / "items.parquet")
        np.save(directory / "embeddings.npy", np.ascontiguousarray(trained.embeddings, np.float32))
        np.save(directory / "neighbors.npy", np.ascontiguousarray(trained.neighbors, np.int32))
        np.save(directory / "neighbor_scores.npy", np.ascontiguousarray(trained.neighbor_scores, np.float32))
        index = build_index(trained.embeddings, trained.index)
        write_index(index, directory / "index.faiss")
        write_lists(index, trained.embeddings, directory)
        save_module(trained.tower, directory / USER_TOWER)
        save_module(trained.ranker, directory / RANKER)

    def manifest(version: str, files: dict[str, FileDigest]) -> Manifest:
        return Manifest(
            format=1,
            name=name,
            version=version,
            created_at=now(),
            user=trained.user,
            item=trained.item,
            dimension=trained.embeddings.shape[1],
            user_tower=ModuleSpec("endcap/user_tower/1", trained.tower_config, USER_TOWER),
            ranker=ModuleSpec("endcap/ranker/1", trained.ranker_config, RANKER),
            index=trained.index,
            metrics={model: dict(values) for model, values in metrics.items()},
            files=files,
            shop=shop,
            statistics=dict(trained.statistics),
        )

    return write_bundle(models, name, manifest, write_files)
