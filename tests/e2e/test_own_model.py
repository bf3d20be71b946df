"""docs/bring-your-own-model.md, as its reader would do it: every command of the walk, and every trip that it quotes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ranking.bundle import lengths, load_bundle
from ranking.errors import BundleError
from ranking.pack import pack, read_spec
from tests.conftest import Server
from tests.e2e.test_commands import running

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/bring-your-own-model.md").read_text()
WALK = re.findall(r"^\$ (.*)$", GUIDE.split("## Looking into a bundle")[0], re.MULTILINE)
DAY_S = 86400.0
TYPES = {
    "profile:age": "Int64", "profile:spend": "Float32", "profile:country": "String", "recent:items": "Array(String)",
}  # fmt: skip
MAX_AGE_S: dict[str, float | None] = {"profile": 365 * DAY_S, "recent": 30 * DAY_S}


def run(folder: Path, command: str, status: int = 0) -> str:
    """One of the guide's commands, by this Python and this checkout. Returns what it says."""
    name, *arguments = shlex.split(command)
    how = {
        "python": [sys.executable],
        "feast": [str(Path(sys.executable).parent / "feast")],
        "endcap": [sys.executable, "-m", "endcap_command"],
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*how[name], *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with what its make.py makes."""
    folder = tmp_path_factory.mktemp("own") / "own_model"
    shutil.copytree(ROOT / "docs/examples/own_model", folder)
    run(folder, WALK[0])
    return folder


@pytest.mark.timeout(400)
@pytest.mark.slow
def test_the_walk_leads_to_answers(made: Path, valkey: Server, tmp_path: Path) -> None:
    """Each command of the guide in turn; the answers are by the packed model, of fresh features, and whole."""
    folder = Path(shutil.copytree(made, tmp_path / "walk"))
    store = folder / "feature_repo" / "feature_store.yaml"
    store.write_text(store.read_text().replace("localhost:6379", valkey.address))
    config = folder / "endcap.toml"
    config.write_text(config.read_text().replace('model = "mine"', 'model = "mine"\ntimeout_ms = 20000'))
    said = {command: run(folder, command) for command in WALK[1:5]}
    assert "forward pass on a CPU: ScreenedForward" in said["endcap bundle pack pack.toml"]
    checks = [line.split(":")[0] for line in said["endcap bundle check mine"].splitlines()]
    assert len(checks) == 10 and all(f"\n{one}" in GUIDE for one in checks)

    asked = [re.search(r"-d '(.*)'$", command) for command in WALK if command.startswith("curl")]
    assert WALK[5] == "endcap serve" and len(asked) == 2
    with running("serve", "--dir", str(folder), "--port", "0") as (_, url):
        known, unknown = (answer(url, one[1]) for one in asked if one)
    assert [len(known["items"]), len(unknown["items"])] == [3, 2] and known["model"]["name"] == "mine"
    assert known["degraded"] == [] and {one["status"] for one in known["features"].values()} == {"present"}
    assert {one["source"] for one in unknown["items"]} == {"session"}

    assert run(folder, "endcap bundle pack pack.toml") and "mine@1" in run(folder, WALK[8])
    assert "the same: user features" in run(folder, WALK[9])  # the same weights again
    definitions = folder / "feature_repo" / "definitions.py"
    definitions.write_text(definitions.read_text().replace("timedelta(days=30)", "timedelta(days=1)"))
    run(folder, WALK[1])
    quoted(run(folder, "endcap bundle check mine", status=2), "does not fit the Feast registry: recent: trained with")


def answer(url: str, body: str) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/recommendations", body.encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())


def quoted(said: str, begins: str) -> None:
    """The guide has the line that begins so, and it is what was said."""
    (line,) = (one.strip() for one in GUIDE.splitlines() if one.startswith("    ") and begins in one)
    assert line in said, said


def edit(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert text.count(old) == 1, old
        (folder / file).write_text(text.replace(old, new))

    return change


def items(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        columns = pq.read_table(folder / "items.parquet").to_pydict()
        pq.write_table(pa.table({**columns, name: change(columns[name])}), folder / "items.parquet")

    return rewrite


def whole_module(folder: Path) -> None:
    torch.save(torch.nn.Linear(3, 3), folder / "ranker.pt")


class Dropped(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Dropout(0.5))

    def forward(self, user: torch.Tensor, item_embedding: torch.Tensor) -> torch.Tensor:
        return (self.net(user).unsqueeze(1) * item_embedding).sum(-1)


def in_training_mode(folder: Path) -> None:
    users, candidates = torch.export.Dim("users", max=99), torch.export.Dim("candidates", max=9999)
    program = torch.export.export(
        Dropped().train(), (), kwargs={"user": torch.zeros(3, 16), "item_embedding": torch.zeros(3, 7, 16)},
        dynamic_shapes={"user": {0: users}, "item_embedding": {0: users, 1: candidates}},
    )  # fmt: skip
    torch.export.save(program, folder / "ranker.pt2")
    edit("pack.toml", 'module = "models.py:Ranker"\nweights = "ranker.pt"', 'program = "ranker.pt2"')(folder)


def one_row_too_few(folder: Path) -> None:
    edit("models.py", "nn.Embedding(4, 4)", "nn.Embedding(3, 4)")(folder)
    edit("pack.toml", 'weights = "tower.pt"\n', "")(folder)


SHOPPER = "shopper = torch.cat([user, dense], -1).unsqueeze(1).expand(-1, item_embedding.shape[1], -1)"
NORMALIZED = "        return nn.functional.normalize"
TRIPS: dict[str, tuple[Callable[[Path], None], str]] = {
    "an input by another name": (
        edit("models.py", "user: Tensor, dense: Tensor", "user: Tensor, age: Tensor"), "its forward asks for 'age'",
    ),
    "a branch that looks at the data": (
        edit("models.py", NORMALIZED, f"        if dense.sum() > 0:\n            x = x * 2\n{NORMALIZED}"),
        "models.py:18",
    ),
    "a size that is written down": (
        edit("models.py", SHOPPER, "shopper = torch.cat([user, dense], -1).view(3, 1, 18).expand(3, 7, 18)"),
        "Constraints violated",
    ),
    "a dimension too many": (edit("models.py", ".squeeze(-1))", ")"), "shape (2, 3, 1)"),
    "eval() forgotten": (in_training_mode, "in two ways"),
    "a vocabulary off by one": (one_row_too_few, "index out of range"),
    "words where a number is wanted": (
        edit("pack.toml", '"price", transform = "log1p", mean = 3.0', '"name"'), "words need a vocabulary",
    ),
    "an id twice": (items("sku", lambda ids: [ids[1], *ids[1:]]), "and again in row 2"),
    "NaN": (items("embedding", lambda old: [[float("nan")] * 16, *old[1:]]), "NaN or infinity in row 1"),
    "the whole module saved": (whole_module, "more than tensors by name"),
    "a name that Feast does not know": (edit("pack.toml", "profile:age", "profiles:age"), "no such view"),
}  # fmt: skip


def packed(folder: Path) -> Path:
    spec = folder / "pack.toml"
    return pack(spec, read_spec(spec), TYPES, MAX_AGE_S, folder / "models")


@pytest.mark.parametrize("trip", TRIPS)
def test_a_trip_says_what_the_guide_quotes_and_leaves_nothing(
    made: Path, tmp_path: Path, trip: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "trip"))
    change, begins = TRIPS[trip]
    change(folder)
    with pytest.raises(BundleError) as caught:
        packed(folder)
    line = str(caught.value)
    quoted(line.replace(f"{folder}/", ""), begins)
    assert "\n" not in line and "\x1b" not in line and not (folder / "models").exists()
    assert capfd.readouterr() == ("", "")


def test_embeddings_that_are_not_of_unit_length_are_packed_and_said(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "long"))
    items("embedding", lambda old: [[5 * one for one in row] for row in old])(folder)
    quoted(lengths(load_bundle(packed(folder)).items.embeddings), "long vectors are found more often")


def test_the_models_of_the_example_know_nothing_of_endcap(made: Path) -> None:
    source = (made / "models.py").read_text()
    assert set(re.findall(r"^(?:from|import) (\w+)", source, re.M)) == {"torch"}
