"""Makes an Endcap deployment that serves the reference work W1: `python -m load.peers.w1_deployment W1 DIR`.

W1's own artifacts (in $W1: embeddings, features, weights, index, a Feast repo that is applied and materialized) are
packed by `endcap bundle pack`, as any user's would be. `BINARY` is the `endcap` command beside this Python.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BINARY = Path(sys.executable).parent / "endcap"
HERE = Path(__file__).parent

PROFILE = ("age_bucket", "gender", "country", "tenure_days", "premium", "fav_category", "avg_basket", "returns_rate")
ACTIVITY = ("views_1h", "views_24h", "carts_24h", "purchases_7d", "spend_30d", "ctr_7d", "session_len", "idle_min")
MEAN = [3.5, 1, 2, 500, 0.2, 99.5, 50, 0.5] + [10] * 8
SCALE = [0.44, 1.2, 0.7, 0.0035, 2.5, 0.017, 0.035, 3.5] + [0.17] * 8
WORDS = {"gender": ["f", "m", "x"], "country": ["US", "DE", "FR", "BR", "JP"]}

CONFIG = """[service]
timeout_ms = 1000

[features]
repo = "{repo}"

# The harness keeps 64 requests waiting on two cores and compares whole answers: they may wait, and none of them may be
# made with less.
[engine]
slo_ms = 90

[events]
consume = false

[placements.home]
sources = {{ personal = 500 }}
model = "w1"
timeout_ms = 500
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("w1", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    make(arguments.w1.resolve(), arguments.directory.resolve())
    return 0


def make(w1: Path, directory: Path) -> None:
    """Writes `directory` anew: endcap.toml, the pack file with what it names, and the bundle."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "data").mkdir(parents=True)
    (directory / "endcap.toml").write_text(CONFIG.format(repo=w1 / "feast"))
    packing = directory / "pack"
    packing.mkdir()
    shutil.copy(HERE / "w1_models.py", packing)
    for name in ("tower.pt", "ranker.pt", "ivf.faiss"):
        shutil.copy(w1 / name, packing)
    embeddings, dense = np.load(w1 / "item_emb.npy"), np.load(w1 / "item_dense.npy")
    columns = {"item_id": [str(row) for row in range(len(embeddings))]}
    columns |= {f"dense_{f}": dense[:, f] for f in range(dense.shape[1])}
    vectors = pa.FixedSizeListArray.from_arrays(embeddings.ravel(), embeddings.shape[1])
    pq.write_table(pa.table(columns | {"embedding": vectors}), packing / "items.parquet")
    (packing / "pack.toml").write_text(pack_file(dense.shape[1], json.loads((w1 / "workload.json").read_text())))
    subprocess.run([BINARY, "bundle", "pack", packing / "pack.toml", "--dir", directory], check=True)  # noqa: S603


def pack_file(item_dense: int, workload: dict[str, int]) -> str:
    lines = ['name = "w1"', "[user]", 'feature_service = "w1"']
    lines += ['history = { source = "user_recent:recent_items", length = 20 }']
    names = [*(("user_profile", name) for name in PROFILE), *(("user_activity", name) for name in ACTIVITY)]
    for (view, name), mean, scale in zip(names, MEAN, SCALE, strict=True):
        lines += ["[[user.dense]]", f'source = "{view}:{name}"', f"mean = {mean}", f"scale = {scale}"]
        lines += [f"vocabulary = {json.dumps(WORDS[name])}"] if name in WORDS else []
    lines += ["[items]", 'file = "items.parquet"']
    for f in range(item_dense):
        lines += ["[[items.dense]]", f'source = "dense_{f}"']
    lines += ["[index]", 'file = "ivf.faiss"', f'factory = "IVF{workload["nlist"]},Flat"']
    lines += [f"nprobe = {workload['nprobe']}"]
    lines += ["[user_tower]", 'module = "w1_models.py:UserTower"', 'weights = "tower.pt"']
    lines += ["[ranker]", 'module = "w1_models.py:Ranker"', 'weights = "ranker.pt"']
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
