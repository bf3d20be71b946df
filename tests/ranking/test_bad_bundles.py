"""A bundle that is not what its manifest says, or that could not serve, is refused: one line that names the file and
says what differs; no pickle in it is executed, and nothing is changed."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranking.archive import check_size
from ranking.bundle import MANIFEST, load_bundle
from ranking.errors import BundleError
from ranking.exported import ExportedRanker
from tests.ranking.damage import (
    DIMENSION,
    Damage,
    Trap,
    array,
    both,
    column,
    cut,
    declared,
    entry,
    flip,
    folder,
    index_of,
    linked_out,
    module_elsewhere,
    objects,
    one_word_too_few,
    pickled,
    pipe,
    plain_trap,
    put,
    saved_trap,
    seal,
    sealed,
    sprung,
    torch_saved,
    unknown_architecture,
    with_program,
    written,
)
from tests.ranking.factory import make_bundle

ITEMS = 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("models"), ITEMS, dimension=DIMENSION)


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "models" / "default" / "1"))


def no_items(bundle: Path) -> None:
    pq.write_table(pq.read_table(bundle / "items.parquet").slice(0, 0), bundle / "items.parquet")


BAD: dict[str, tuple[Damage, str, str]] = {
    "a wrong dimension": (declared(dimension=8), "embeddings.npy", "float32[40, 16], expected float32[40, 8]"),
    "a missing file": (lambda bundle: (bundle / "neighbors.npy").unlink(), "neighbors.npy", "is missing"),
    "a flipped byte": (flip, "ranker.safetensors", "the manifest says"),
    "a file cut short": (cut("items.parquet"), "items.parquet", "bytes, the manifest says"),
    "no manifest": (lambda bundle: (bundle / MANIFEST).unlink(), MANIFEST, "no such file"),
    "a manifest cut short": (cut(MANIFEST), MANIFEST, "is damaged, or no manifest"),
    "a manifest of a later format": (written(MANIFEST, b'{"format": 2}'), MANIFEST, "Invalid enum value 2"),
    "an extra file": (written("notes.txt", b"mine"), "notes.txt", "is not in the manifest"),
    "an extra folder": (lambda bundle: (bundle / "more").mkdir(), "more", "is not in the manifest"),
    "a link out of the bundle": (linked_out, "embeddings.npy", "is a link out of the bundle"),
    "a folder for a file": (folder("index.faiss"), "index.faiss", "is no file"),
    "a pipe for a file": (pipe("index.faiss"), "index.faiss", "is no file"),
    "an id twice": (column("item_id", lambda ids: [ids[1], *ids[1:]]), "items.parquet", "item_id has 'i00001' twice"),
    "an id of null": (column("item_id", lambda ids: [None, *ids[1:]]), "items.parquet", "item_id has 1 nulls"),
    "ids that are numbers": (
        column("item_id", lambda ids: list(range(len(ids))), pa.int64()), "items.parquet", "is int64, not string",
    ),
    "words where numbers are wanted": (
        column("events_7d", lambda old: ["many"] * len(old), pa.string()), "items.parquet", "events_7d is string",
    ),
    "no items": (sealed(no_items), "items.parquet", "holds no item"),
    "no Parquet": (sealed(written("items.parquet", b"item_id,title\n")), "items.parquet", "or no Parquet"),
    "embeddings of NaN": (array("embeddings.npy", put(3, np.nan)), "embeddings.npy", "NaN or infinity in row 4"),
    "embeddings of infinity": (array("embeddings.npy", put(0, np.inf)), "embeddings.npy", "infinity in row 1"),
    "embeddings in float64": (
        array("embeddings.npy", lambda old: old.astype(np.float64)), "embeddings.npy",
        "float64[40, 16], expected float32[40, 16]",
    ),
    "one embedding too few": (
        array("embeddings.npy", lambda old: old[1:]), "embeddings.npy", "float32[39, 16], expected float32[40, 16]",
    ),
    "an empty array file": (sealed(written("embeddings.npy", b"")), "embeddings.npy", "is damaged, or no array"),
    "an archive for an array": (torch_saved("embeddings.npy"), "embeddings.npy", "is an archive, no array"),
    "neighbors out of range": (array("neighbors.npy", put(0, ITEMS)), "neighbors.npy", "names row 40, outside"),
    "neighbors below -1": (array("neighbors.npy", put(0, -2)), "neighbors.npy", "names row -2, outside"),
    "neighbors in int64": (
        array("neighbors.npy", lambda old: old.astype(np.int64)), "neighbors.npy", "expected int32[40, M]",
    ),
    "scores of other neighbors": (
        array("neighbor_scores.npy", lambda old: old[:, 1:]), "neighbor_scores.npy", "expected float32[40, 10]",
    ),
    "a neighbor's score of NaN": (array("neighbor_scores.npy", put(0, np.nan)), "neighbor_scores.npy", "has NaN"),
    "an index of another dimension": (index_of(40, 8), "index.faiss", "vectors of 8 numbers, the item table 40 of 16"),
    "an index of other items": (index_of(39, 16), "index.faiss", "39 vectors of 16 numbers, the item table 40 of 16"),
    "an index by distance": (index_of(40, 16, faiss.METRIC_L2), "index.faiss", "by distance, not by inner product"),
    "no index": (
        sealed(both(index_of(40, 16), written("index.faiss", b"none"))), "index.faiss", "no index that can be used",
    ),
    "lists of another dimension": (array("scan_codes.npy", lambda old: old[:, 1:]), "scan_codes.npy", "is of shape"),
    "lists that name a row twice": (array("scan_rows.npy", lambda old: old * 0), "scan_rows.npy", "of 40 rows once"),
    "a part of the lists missing": (
        sealed(lambda bundle: (bundle / "scan_steps.npy").unlink()), "scan_steps.npy", "No such file",
    ),
    "an architecture that there is not": (unknown_architecture, "ranker.safetensors", "unknown architecture 'resnet'"),
    "a module outside of the bundle": (module_elsewhere, MANIFEST, "'../ranker.safetensors' is not among its files"),
    "a module of other weights": (
        sealed(lambda bundle: shutil.copy(bundle / "user_tower.safetensors", bundle / "ranker.safetensors")),
        "ranker.safetensors", "state_dict",
    ),
    "a table of words one row too short": (one_word_too_few, "user_tower.safetensors", "last word of each vocabulary"),
    "a pickle for a module": (pickled("ranker.safetensors"), "ranker.safetensors", "header"),
    "a torch.save file for a module": (torch_saved("user_tower.safetensors"), "user_tower.safetensors", "header"),
    "a pickle for an array": (pickled("neighbors.npy"), "neighbors.npy", "pickle"),
    "an array of objects": (sealed(objects), "neighbors.npy", "is damaged, or no array"),
    "a pickle for an item table": (pickled("items.parquet"), "items.parquet", "or no Parquet"),
    "a pickle for an index": (
        both(index_of(40, 16), pickled("index.faiss")), "index.faiss", "no index that can be used",
    ),
    "a pickle for a program": (with_program(lambda path: path.write_bytes(plain_trap(path))), "ranker.pt2",
                               "it is no archive"),
    "a torch.save file for a program": (with_program(lambda path: path.write_bytes(saved_trap(path))),
                                        "ranker.pt2", "torch.save wrote it"),
    "a pickle for a program's example inputs": (entry("sample_inputs/model.pt", saved_trap), "ranker.pt2",
                                                "more than tensors"),
    "a bare pickle for a program's example inputs": (entry("sample_inputs/model.pt", plain_trap), "ranker.pt2",
                                                     "more than tensors"),
    "a program with an object": (
        entry("sample_inputs/model.pt", plain_trap, "constants/opaque_obj_0"), "ranker.pt2", "is a pickle",
    ),
    "a program with machine code": (
        entry("sample_inputs/model.pt", plain_trap, "aotinductor/model/a.so"), "ranker.pt2", "is machine code",
    ),
    "a program whose size is code": (
        entry("models/model.json", lambda path: b'{"a": [{"expr_str": "__import__(\'os\').abort()"}]}'),
        "ranker.pt2", "is none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_bundle_is_one_line_that_names_the_file_and_nothing_is_run_or_changed(bundle: Path, case: str) -> None:
    damage, file, said = BAD[case]
    damage(bundle)
    before = everything(bundle.parents[2])
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle)
    line = str(caught.value)
    assert line.startswith(f"{bundle}") and file in line and said in line and "\n" not in line, line
    assert not sprung(bundle).exists()
    assert everything(bundle.parents[2]) == before


def everything(directory: Path) -> dict[Path, tuple[int, bytes]]:
    """Every path below with its time of change and content."""
    found = sorted(directory.rglob("*"))
    return {one: (one.lstat().st_mtime_ns, one.read_bytes() if one.is_file() else b"") for one in found}


def test_the_trap_springs_where_a_pickle_is_executed(bundle: Path) -> None:
    """Or the contract above would prove nothing."""
    pickle.loads(pickle.dumps(Trap(sprung(bundle))))
    assert sprung(bundle).exists()


def test_a_program_as_torch_writes_it_loads_with_its_example_inputs(bundle: Path) -> None:
    with_program(lambda path: None)(bundle)
    assert isinstance(load_bundle(bundle).ranker, ExportedRanker)


def test_a_bundle_whose_file_is_a_link_within_it_loads(bundle: Path) -> None:
    """What a store of shared files makes of two that are the same."""
    (bundle / "scan_copy.npy").write_bytes((bundle / "embeddings.npy").read_bytes())
    (bundle / "embeddings.npy").unlink()
    (bundle / "embeddings.npy").symlink_to("scan_copy.npy")
    seal(bundle)
    assert load_bundle(bundle).items.embeddings.shape == (ITEMS, DIMENSION)


@pytest.mark.parametrize(
    "size", ["exec(1)", "a.b", "x[0]", "(lambda: 1)()", "Symbol('a b')", "_x", "1 if x else 2", "("]
)
def test_a_size_is_symbols_and_arithmetic_and_nothing_else(size: str) -> None:
    check_size("Max(Integer(9), Symbol('s0', positive=True)) + 2*s1 - floor(s2)")
    with pytest.raises(ValueError, match="is none"):
        check_size(size)
