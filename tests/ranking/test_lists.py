"""The lists of our own scan in a bundle: mapped, checked, and not needed by a bundle that was made without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from ranking.bundle import MANIFEST, digest, load_bundle, read_manifest
from ranking.device import by_faiss, place_index
from ranking.errors import BundleError
from ranking.index import CpuIndex
from ranking.lists import PARTS
from ranking.scanned import ScannedIndex
from tests.ranking.factory import make_bundle

QUERIES = np.random.default_rng(3).standard_normal((6, 16)).astype(np.float32)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_bundle(tmp_path, 400, factory="IVF8,Flat")


def declare(directory: Path) -> None:
    """Writes the manifest anew for the files that are there, as somebody might who means ill."""
    files = {one.name: digest(one) for one in directory.iterdir() if one.name != MANIFEST}
    manifest = msgspec.structs.replace(read_manifest(directory), files=files)
    (directory / MANIFEST).write_bytes(msgspec.json.encode(manifest))


def test_the_lists_are_mapped_and_nothing_is_made_of_them_at_load(directory: Path) -> None:
    index = load_bundle(directory).index
    assert isinstance(index, ScannedIndex)
    for name in PARTS:
        assert isinstance(getattr(index.file.lists, name).base, np.memmap), name


def test_a_bundle_without_lists_loads_and_answers_alike(directory: Path) -> None:
    """As those that were made before there were any."""
    new = load_bundle(directory).index
    for name in PARTS:
        (directory / f"scan_{name}.npy").unlink()
    declare(directory)
    bundle = load_bundle(directory)
    assert isinstance(bundle.index, CpuIndex)
    for mine, theirs in zip(
        new.search(QUERIES, 30), place_index(bundle, torch.device("cpu")).search(QUERIES, 30), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_faiss_own_index_is_there_for_who_needs_it(directory: Path) -> None:
    bundle = load_bundle(directory)
    np.testing.assert_array_equal(by_faiss(bundle).search(QUERIES, 20)[1], bundle.index.search(QUERIES, 20)[1])


def test_an_index_of_another_kind_has_no_lists(tmp_path: Path) -> None:
    directory = make_bundle(tmp_path, 400, factory="IVF8,SQ8")
    assert not list(directory.glob("scan_*")) and isinstance(load_bundle(directory).index, CpuIndex)


def twice(rows: np.ndarray) -> np.ndarray:
    rows[3] = rows[4]
    return rows


def beyond(rows: np.ndarray) -> np.ndarray:
    rows[3] = 400
    return rows


BAD: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "a row twice": ("rows", twice, "does not hold each of 400 rows once"),
    "a row that there is not": ("rows", beyond, "does not hold each of 400 rows once"),
    "lists that go backwards": ("offsets", lambda one: one[::-1].copy(), "does not hold each of 400 rows once"),
    "too few codes": ("codes", lambda one: one[:-1], "scan_codes.npy is of shape (399, 16), not (400, 16)"),
    "codes of another type": ("codes", lambda one: one.astype(np.int16), "scan_codes.npy holds int16, not int8"),
    "no step": ("steps", lambda one: one[:0], "scan_steps.npy is of shape (0,), not (400,)"),
}


@pytest.mark.parametrize("case", BAD)
def test_lists_that_no_search_could_trust_are_refused_by_one_line(directory: Path, case: str) -> None:
    name, change, said = BAD[case]
    path = directory / f"scan_{name}.npy"
    np.save(path, change(np.load(path)))
    declare(directory)
    with pytest.raises(BundleError) as caught:
        load_bundle(directory)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_lists_that_changed_on_disk_are_refused(directory: Path) -> None:
    path = directory / "scan_codes.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(BundleError, match=r"scan_codes\.npy: SHA-256"):
        load_bundle(directory)
