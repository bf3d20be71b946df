"""Where faiss is not installed, as on a machine with nothing but torch: what still works, and what says so."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from ranking.batch import Query
from ranking.bundle import load_bundle
from ranking.engine import BatchPath
from ranking.sources.personal import Personal
from tests.ranking.factory import make_bundle

PROGRAM = """
import json, sys
sys.modules["faiss"] = None
from contextlib import nullcontext
from pathlib import Path
import torch
from ranking.batch import Query
from ranking.batcher import hold_to_one_core
from ranking.bundle import load_bundle
from ranking.engine import BatchPath
from ranking.errors import RankingError
from ranking.index import IndexRecipe, build_index, gpu_available
from ranking.sources.personal import Personal

hold_to_one_core()
assert not gpu_available()
bundle = load_bundle(Path(sys.argv[1]))
path = BatchPath(bundle, [Personal()], torch.device("cpu"))
(ranked,) = path.recommend([Query({}, {"personal": 50}, 20)], lambda stage: nullcontext())
try:
    build_index(bundle.items.embeddings, IndexRecipe())
except RankingError as error:
    print(json.dumps({"rows": ranked.rows.tolist(), "error": str(error)}))
"""


def test_a_bundle_loads_and_answers_and_only_making_an_index_says_what_is_missing(tmp_path: Path) -> None:
    home = make_bundle(tmp_path, items=300)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(home)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    path = BatchPath(load_bundle(home), [Personal()], torch.device("cpu"))
    (ranked,) = path.recommend([Query({}, {"personal": 50}, 20)], lambda stage: nullcontext())
    assert said["rows"] == ranked.rows.tolist()
    assert said["error"].endswith("which is not installed: pip install faiss-cpu")
