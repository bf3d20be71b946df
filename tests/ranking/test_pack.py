"""A user's own modules, items and index become a bundle that answers as the modules say, or one line says why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from ranking.batch import Query
from ranking.bundle import Bundle, load_bundle
from ranking.engine import BatchPath
from ranking.errors import BundleError
from ranking.exported import ExportedRanker, export
from ranking.forward import TorchForward, forward
from ranking.lists import PARTS
from ranking.models import load_module
from ranking.pack import RANKER as RANKER_KIND
from ranking.pack import pack, read_spec, write_program
from ranking.screened import ScreenedForward
from ranking.sources.personal import Personal
from ranking.statistics import Words
from tests.ranking import own_models
from tests.ranking.own_models import EMBEDDING, Products, Ranker, Tower

CPU = torch.device("cpu")
ITEMS = 600
TYPES = {
    "profile:age": "Int64", "profile:plan": "String", "profile:spend": "Float32", "profile:country": "String",
    "recent:items": "Array(String)",
}  # fmt: skip
SPEC = """
name = "mine"
[user]
feature_service = "mine"
history = { source = "recent:items", length = 5 }
dense = [
  { source = "profile:age", mean = 40, scale = 0.05 },
  { source = "profile:plan", vocabulary = ["free", "pro"], default = 0.0 },
  { source = "profile:spend", transform = "log1p", mean = 2.0, scale = 0.5 },
]
categorical = [ { source = "profile:country", vocabulary = ["DE", "FR", "US"] } ]
[items]
file = "items.parquet"
title = "name"
dense = [ { source = "weight" }, { source = "size", vocabulary = ["S", "M", "L"], mean = 1.0 } ]
categorical = [ { source = "brand", vocabulary = ["a", "b", "c"] } ]
[index]
factory = "IVF8,Flat"
nprobe = 8
[user_tower]
module = "own_models.py:Tower"
weights = "tower.safetensors"
config = { hidden = 24 }
[ranker]
module = "own_models.py:Ranker"
weights = "ranker.pt"
"""


def table(items: int = ITEMS) -> pa.Table:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((items, EMBEDDING)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pa.table({
        "item_id": np.arange(items),  # ids of any type are strings in the bundle
        "name": [f"Thing {row}" for row in range(items)],
        "embedding": pa.FixedSizeListArray.from_arrays(vectors.ravel(), EMBEDDING),
        "weight": rng.random(items).astype(np.float32),
        "size": rng.choice(["S", "M", "L"], items).tolist(),
        "brand": rng.choice(["a", "b", "c", "other"], items).tolist(),
    })  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with everything that SPEC names."""
    torch.manual_seed(0)
    (tmp_path / "own_models.py").write_text(Path(own_models.__file__).read_text())
    save_file(Tower(24).state_dict(), tmp_path / "tower.safetensors")
    torch.save(Ranker().state_dict(), tmp_path / "ranker.pt")
    pq.write_table(table(), tmp_path / "items.parquet")
    return tmp_path


def packed(place: Path, spec: str = SPEC) -> Bundle:
    path = place / "pack.toml"
    path.write_text(spec)
    return load_bundle(pack(path, read_spec(path), TYPES, {"profile": 3600.0, "recent": None}, place / "models"))


def shoppers() -> Iterator[Query]:
    rng = np.random.default_rng(1)
    for number in range(12):
        features: dict[str, Any] = {
            "profile:age": int(rng.integers(18, 80)), "profile:plan": ["free", "pro", "gone"][number % 3],
            "profile:spend": float(rng.random() * 50), "profile:country": ["DE", "US", "XX"][number % 3],
            "recent:items": [str(one) for one in rng.integers(0, ITEMS, number % 7)],
        }  # fmt: skip
        yield Query(features=features, sources={"personal": 300}, count=20)
    yield Query(features={}, sources={"personal": 300}, count=20)


def by_hand(place: Path, query: Query) -> np.ndarray:
    """The scores of all items by the user's own modules, in plain torch."""
    tower, ranker = Tower(24), Ranker()
    from safetensors.torch import load_file

    tower.load_state_dict(load_file(place / "tower.safetensors"))
    ranker.load_state_dict(torch.load(place / "ranker.pt", weights_only=True))
    items = table().to_pydict()
    vectors = torch.tensor(np.array(items["embedding"], np.float32))
    f = query.features
    plan = {"free": 0.0, "pro": 1.0}.get(str(f.get("profile:plan")), 0.0)
    age, spend = f.get("profile:age", 40), f.get("profile:spend", np.expm1(2.0))
    dense = torch.tensor([[(age - 40) * 0.05, plan, (np.log1p(spend) - 2.0) * 0.5]], dtype=torch.float32)  # type: ignore[operator,call-overload]
    code = {"DE": 1, "FR": 2, "US": 3}.get(str(f.get("profile:country")), 0)
    recent: Any = f.get("recent:items") or []
    rows = [int(one) for one in recent][-5:]
    mask = torch.tensor([[False] * (5 - len(rows)) + [True] * len(rows)])
    seen = torch.zeros(1, 5, EMBEDDING)
    seen[0, 5 - len(rows) :] = vectors[rows]
    size = [{"S": 0, "M": 1, "L": 2}[one] - 1.0 for one in items["size"]]
    facts = torch.tensor(np.stack([items["weight"], size], 1).astype(np.float32))
    brand = torch.tensor([[{"a": 1, "b": 2, "c": 3}.get(one, 0)] for one in items["brand"]])
    with torch.inference_mode():
        user = tower(dense, torch.tensor([[code]]), seen, mask)
        scores = ranker(user, dense, vectors[None], facts[None], brand[None])[0]
        near = torch.argsort(-(vectors @ user[0]))[:300]
    out = np.full(ITEMS, -np.inf)
    out[near] = scores[near]
    return out


def test_what_was_packed_answers_as_the_users_own_modules_do(place: Path) -> None:
    """Every shopper's top 20, alone and in a batch, unknown words and missing features included."""
    bundle = packed(place)
    path = BatchPath(bundle, (Personal(),), CPU)
    assert isinstance(path.models, ScreenedForward)
    queries = list(shoppers())
    together = path.recommend(queries, lambda stage: nullcontext())
    for query, found in zip(queries, together, strict=True):
        (alone,) = path.recommend([query], lambda stage: nullcontext())
        expected = by_hand(place, query)
        best = np.argsort(-expected, kind="stable")[:20]
        for one in (alone, found):
            np.testing.assert_allclose(one.scores, expected[best], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(expected[one.rows], one.scores, rtol=1e-5, atol=1e-6)


def test_a_ranker_that_cannot_be_taken_apart_is_run_by_torch(place: Path) -> None:
    bundle = packed(place, SPEC.replace('"own_models.py:Ranker"\nweights = "ranker.pt"', '"own_models.py:Products"'))
    assert isinstance(forward(bundle, CPU), TorchForward)
    (found,) = BatchPath(bundle, (Personal(),), CPU).recommend([next(shoppers())], lambda stage: nullcontext())
    np.testing.assert_allclose(found.scores, found.retrieval, rtol=1e-5)  # a product is what retrieved them


def test_a_program_and_a_ready_index_are_taken_as_they_are(place: Path) -> None:
    users, candidates = torch.export.Dim("users", min=1, max=100), torch.export.Dim("candidates", min=1, max=5000)
    program = torch.export.export(
        Products(), (), kwargs={"user": torch.zeros(2, EMBEDDING), "item_embedding": torch.zeros(2, 3, EMBEDDING)},
        dynamic_shapes={"user": {0: users}, "item_embedding": {0: users, 1: candidates}},
    )  # fmt: skip
    torch.export.save(program, place / "ranker.pt2")
    vectors = np.array(table()["embedding"].to_pylist(), np.float32)
    index = faiss.index_factory(EMBEDDING, "Flat", faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    faiss.write_index(index, str(place / "ready.faiss"))
    spec = SPEC.replace('module = "own_models.py:Ranker"\nweights = "ranker.pt"', 'program = "ranker.pt2"')
    bundle = packed(place, spec.replace('factory = "IVF8,Flat"\nnprobe = 8', 'file = "ready.faiss"'))
    (found,) = BatchPath(bundle, (Personal(),), CPU).recommend([next(shoppers())], lambda stage: nullcontext())
    assert len(found.rows) == 20


SAMPLE: dict[str, Any] = {
    "profile:age": [20, 30, None, 40] * 50, "plan": ["free", "gone", None, "pro"] * 50,
    "profile:spend": pa.array([1.5, 2.5, 3.5, 4.5] * 50, pa.float64()), "country": ["DE", "DE", "FR", None] * 50,
    "user": ["a"] * 200,
}  # fmt: skip
WITH_SAMPLE = SPEC + '[statistics]\nfile = "sample.parquet"\n'


def test_a_sample_of_what_the_model_was_trained_on_becomes_statistics(place: Path) -> None:
    """Columns named by reference or by feature; without a sample there are none."""
    pq.write_table(pa.table(SAMPLE), place / "sample.parquet")
    found = packed(place, WITH_SAMPLE).statistics
    assert set(found) == set(TYPES) - {"recent:items"}
    missing = {source: one.missing for source, one in found.items()}
    assert missing == {"profile:age": 0.25, "profile:plan": 0.5, "profile:spend": 0.0, "profile:country": 0.25}
    country = found["profile:country"]
    assert isinstance(country, Words) and country.shares == {"DE": 0.5, "FR": 0.25}
    assert packed(place).statistics == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"country": None}, "column profile:country or country is missing; there are profile:age"),
        ({"profile:spend": ["much"] * 200}, "column profile:spend is string, and profile:spend is a number"),
        ({"plan": [[1]] * 200}, "column plan is list<"),
        ({name: [] for name in SAMPLE}, "holds no row"),
    ],
)
def test_a_sample_that_does_not_fit_is_one_line_and_leaves_nothing(
    place: Path, changes: dict[str, Any], said: str
) -> None:
    columns = {name: values for name, values in {**SAMPLE, **changes}.items() if values is not None}
    pq.write_table(pa.table(columns), place / "sample.parquet")
    with pytest.raises(BundleError) as refused:
        packed(place, WITH_SAMPLE)
    assert str(refused.value).startswith(f"{place / 'sample.parquet'}: ") and said in str(refused.value)
    assert "\n" not in str(refused.value) and not list((place / "models").rglob("*"))


def test_a_sample_that_is_not_there_or_no_parquet_is_one_line(place: Path) -> None:
    for write in (lambda: None, lambda: (place / "sample.parquet").write_text("a,b")):
        write()
        with pytest.raises(BundleError, match=r"sample\.parquet: ") as refused:
            packed(place, WITH_SAMPLE)
        assert "\n" not in str(refused.value)


def test_a_bundle_holds_no_code_and_no_pickle(place: Path) -> None:
    bundle = packed(place)
    assert {one.name for one in bundle.path.iterdir()} == {
        "manifest.json", "items.parquet", "embeddings.npy", "neighbors.npy", "neighbor_scores.npy", "index.faiss",
        "user_tower.safetensors", "ranker.safetensors", *(f"scan_{part}.npy" for part in PARTS),
    }  # fmt: skip


def test_a_module_that_is_no_plain_graph_is_written_as_torch_does_and_holds_no_pickle(tmp_path: Path) -> None:
    import zipfile

    given = {"user": torch.zeros(3, EMBEDDING), "item_embedding": torch.zeros(3, 7, EMBEDDING)}
    spec = write_program(export(own_models.Larger(), tuple(given), given, "test"), RANKER_KIND, tmp_path)
    assert (spec.architecture, [one.name for one in tmp_path.iterdir()]) == (RANKER_KIND, ["ranker.pt2"])
    with zipfile.ZipFile(tmp_path / "ranker.pt2") as file:
        for entry in file.namelist():
            head = file.read(entry)[:2]
            assert head not in (b"\x80\x02", b"\x80\x04", b"PK"), f"{entry} is a pickle"
    module = load_module(spec, tmp_path, torch.zeros(3, EMBEDDING))
    assert isinstance(module, ExportedRanker)
    assert module.program(*given.values()).shape == (3, 7)


@pytest.mark.parametrize(
    ("old", "name", "said"), [("RANKER", "Broken", "ranker"), ("TOWER", "BrokenTower", "user tower")]
)
def test_a_module_that_answers_with_no_number_fails_for_that_shopper_alone(
    place: Path, old: str, name: str, said: str
) -> None:
    """One line that says which module it was; no NaN becomes a score, an index or a place in a list."""
    bundle = packed(place, SPEC.replace({"RANKER": RANKER, "TOWER": TOWER}[old], own(name)))
    path = BatchPath(bundle, (Personal(),), CPU)
    old_one, young = ({"profile:age": age, "profile:plan": "free"} for age in (80, 30))
    with pytest.raises(ValueError, match=f"the {said} answered with NaN or infinity"):
        path.recommend([Query(old_one, {"personal": 300}, 20)], lambda stage: nullcontext())
    (found,) = path.recommend([Query(young, {"personal": 300}, 20)], lambda stage: nullcontext())
    assert np.isfinite(found.scores).all()


def rewritten(**columns: Any) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        whole = table().to_pydict() | columns
        pq.write_table(pa.table({name: value for name, value in whole.items() if value is not None}),
                       place / "items.parquet")  # fmt: skip

    return change


def nan_row() -> list[list[float]]:
    vectors: list[list[float]] = table()["embedding"].to_pylist()
    vectors[7][2] = float("nan")
    return vectors


def short_row() -> list[list[float]]:
    vectors: list[list[float]] = table()["embedding"].to_pylist()
    vectors[3] = vectors[3][:5]
    return vectors


RANKER = 'module = "own_models.py:Ranker"\nweights = "ranker.pt"'
TOWER = 'module = "own_models.py:Tower"\nweights = "tower.safetensors"\nconfig = { hidden = 24 }'
NOTHING = ("", "")


def own(name: str) -> str:
    return f'module = "own_models.py:{name}"'


BAD: dict[str, tuple[Callable[[Path], None] | None, tuple[str, str], str]] = {
    "an unknown setting": (None, ("[user]\n", "[user]\ncolour = 1\n"), "user: Object contains unknown field"),
    "no TOML": (None, ("[user]\n", "[user\n"), "pack.toml"),
    "no such feature": (None, ("profile:age", "profile:agee"), "profile:agee: the view has no such feature"),
    "no such view": (None, ("profile:age", "profil:age"), "Feast has no such view, only"),
    "no such items": (None, ('"items.parquet"', '"nothing.parquet"'), "nothing.parquet"),
    "an item twice": (rewritten(item_id=[0, *range(ITEMS - 1)]), NOTHING, "has '0' in row 1 and again in row 2"),
    "no such column": (rewritten(weight=None), NOTHING, "column weight is missing; there are"),
    "an empty title": (rewritten(name=[None, *["x"] * (ITEMS - 1)]), NOTHING, "column name is empty in row 1"),
    "an embedding of NaN": (rewritten(embedding=nan_row()), NOTHING, "embedding has NaN or infinity in row 8"),
    "embeddings of two lengths": (rewritten(embedding=short_row()), NOTHING, "has 5 numbers in row 4, not 8"),
    "no such module": (None, ("own_models.py:Ranker", "own_models.py:Rnker"), "has no attribute 'Rnker'"),
    "no such file of modules": (None, ("own_models.py:Ranker", "models.py:Ranker"), "models.py: no such file"),
    "weights of another module": (None, ('"ranker.pt"', '"tower.safetensors"'), "weights"),
    "an unknown input": (None, (RANKER, own("Wrong")), "asks for 'shoe_size', which is no input"),
    "two results": (None, (RANKER, own("Two")), "returns 2 tensors, not one"),
    "another shape": (None, (RANKER, own("Wide")), "shape (2, 3, 8), not (2, 3)"),
    "a ranker for a tower": (None, (TOWER, own("Products")), "asks for 'user', which is no input"),
    "no program": (None, (RANKER, 'program = "items.parquet"'), "is no torch.export program"),
    "neither program nor module": (None, (RANKER, ""), "needs either program or module"),
    "no index": (None, ('factory = "IVF8,Flat"', 'file = "items.parquet"'), "no usable index"),
    "no recipe": (None, ("IVF8,Flat", "IVF8,Flatt"), "no usable index"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_packed_is_one_line_and_leaves_nothing(place: Path, case: str) -> None:
    change, (old, new), said = BAD[case]
    if change is not None:
        change(place)
    with pytest.raises(BundleError) as caught:
        packed(place, SPEC.replace(old, new) if old else SPEC)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (place / "models").exists()


def test_an_index_of_other_items_is_refused(place: Path) -> None:
    index = faiss.index_factory(EMBEDDING, "Flat", faiss.METRIC_INNER_PRODUCT)
    index.add(np.zeros((5, EMBEDDING), np.float32))
    faiss.write_index(index, str(place / "ready.faiss"))
    with pytest.raises(BundleError, match="holds 5 vectors of 8 numbers, the item table 600 of 8"):
        packed(place, SPEC.replace('factory = "IVF8,Flat"\nnprobe = 8', 'file = "ready.faiss"'))
