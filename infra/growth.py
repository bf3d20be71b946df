"""Catalogues like that of the reference work W1, of any size and any number of features, packed as a user's would be.

W1's items: 64 numbers about one of 200 centres, 8 dense features. Its shoppers: standardized numbers and 20 recent
items. Its models with seeded random weights: the cost is real, the taste is not. No Feast and no store: requests are
made here as the service hands them over.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from infra.growth_models import ITEM_DENSE, WIDTH, Ranker, UserTower
from load.peers.w1_deployment import ACTIVITY, MEAN, PROFILE, SCALE, WORDS
from ranking.batch import Query, Ranked
from ranking.bundle import Bundle
from ranking.engine import BatchPath
from ranking.forward import TorchForward
from ranking.pack import pack, read_spec

CENTRES, HISTORY, ANSWERS = 200, 20, 20
CHUNK = 100_000
RECENT = "user_recent:recent_items"
W1_NAMES = [*(f"user_profile:{name}" for name in PROFILE), *(f"user_activity:{name}" for name in ACTIVITY)]


def embeddings(items: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """float32[N, 64], unit length, as W1 makes them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CENTRES, WIDTH)).astype(np.float32)
    category = rng.integers(0, CENTRES, items)
    out = np.empty((items, WIDTH), np.float32)
    for start in range(0, items, CHUNK):
        part = out[start : start + CHUNK]
        part[:] = centres[category[start : start + CHUNK]]
        part += np.float32(0.7) * rng.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return out


def names(features: int) -> list[str]:
    """The dense inputs of a shopper; their history is one feature more. W1's 16 first, then made-up ones."""
    return [*W1_NAMES, *(f"user_wide:f{n}" for n in range(max(features - 1 - len(W1_NAMES), 0)))]


def write(directory: Path, vectors: npt.NDArray[np.float32], features: int = 17) -> Path:
    """The item table and the weights, and a pack file for them but for its index. Returns the pack file."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("growth_models.py"), directory)
    rng, items = np.random.default_rng(1), len(vectors)
    ids = pa.array(np.arange(items)).cast(pa.string())
    columns = {"item_id": ids} | {f"dense_{f}": rng.standard_normal(items, np.float32) for f in range(ITEM_DENSE)}
    rows = pa.FixedSizeListArray.from_arrays(vectors.ravel(), WIDTH)
    pq.write_table(pa.table(columns | {"embedding": rows}), directory / "items.parquet")
    dense = len(names(features))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(UserTower(dense).state_dict(), directory / "tower.pt")
        torch.save(Ranker(dense).state_dict(), directory / "ranker.pt")
    spec = directory / "pack.toml"
    spec.write_text(pack_file(features))
    return spec


def pack_file(features: int) -> str:
    lines = ['name = "growth"', "[user]", 'feature_service = "growth"']
    lines += [f'history = {{ source = "{RECENT}", length = {HISTORY} }}']
    for name, mean, scale in standards(features):
        word = WORDS.get(name.partition(":")[2])
        lines += ["[[user.dense]]", f'source = "{name}"', f"mean = {mean}", f"scale = {scale}"]
        lines += [f"vocabulary = {json.dumps(word)}"] if word else []
    lines += ["[items]", 'file = "items.parquet"']
    lines += [f'[[items.dense]]\nsource = "dense_{f}"' for f in range(ITEM_DENSE)]
    for part, name in (("user_tower", "UserTower"), ("ranker", "Ranker")):
        weights = {"user_tower": "tower.pt", "ranker": "ranker.pt"}[part]
        lines += [f"[{part}]", f'module = "growth_models.py:{name}"', f'weights = "{weights}"']
        lines += [f"config = {{ dense = {len(names(features))} }}"]
    return "\n".join(lines) + "\n"


def standards(features: int) -> Iterator[tuple[str, float, float]]:
    for place, name in enumerate(names(features)):
        yield name, *((MEAN[place], SCALE[place]) if place < len(MEAN) else (0.0, 1.0))


def packed(spec: Path, index: str, models: Path, features: int = 17) -> Path:
    """The bundle of a pack file with such an `[index]` part."""
    text = spec.read_text().partition("[index]")[0]
    spec.write_text(text + index)
    types = dict.fromkeys(names(features), "Float32") | {RECENT: "Array(String)"}
    types |= dict.fromkeys((name for name in names(features) if name.partition(":")[2] in WORDS), "String")
    return pack(spec, read_spec(spec), types, {}, models)


def shoppers(items: int, size: int, candidates: int = 500, features: int = 17, seed: int = 2) -> list[Query]:
    """Requests as the service hands them over: raw features by name, and the ids of recent items."""
    rng = np.random.default_rng(seed)
    recent = rng.integers(0, items, (size, HISTORY)).astype(str).tolist()
    spread = [(name, mean, 1 / scale) for name, mean, scale in standards(features)]
    queries = []
    for ids in recent:
        given: dict[str, object] = {RECENT: ids}
        for name, mean, deviation in spread:
            words = WORDS.get(name.partition(":")[2])
            given[name] = words[int(rng.integers(len(words)))] if words else float(rng.normal(mean, abs(deviation)))
        queries.append(Query(given, {"personal": candidates}, ANSWERS))
    return queries


def answers(path: BatchPath, queries: Sequence[Query]) -> list[Ranked]:
    return path.recommend(queries, lambda stage: nullcontext())


def user_vectors(bundle: Bundle, queries: Sequence[Query]) -> npt.NDArray[np.float32]:
    """The user tower's vectors: float32[n, 64]."""
    path = BatchPath(bundle, (), torch.device("cpu"), models=TorchForward(bundle, torch.device("cpu")))
    parts = [path.encode(queries[at : at + 50])[0].vectors for at in range(0, len(queries), 50)]
    return np.concatenate(parts)
