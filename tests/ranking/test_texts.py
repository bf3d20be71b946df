"""Ids and titles in blocks of memory say what a list and a dict of them would."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.bundle import load_bundle
from ranking.errors import BundleError
from ranking.items import encode_items
from ranking.schema import Categorical, Dense, ItemSchema
from ranking.texts import RowOf, Texts
from ranking.train.save import save
from tests.ranking.factory import make_trained

WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)  # whatever UTF-8 can say, zero bytes included


def texts(values: list[str]) -> Texts:
    half = len(values) // 2
    return Texts(pa.chunked_array([values[:half], values[half:]], pa.string()))


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, unique=True, max_size=40), st.lists(WORDS | st.just("\udc80"), max_size=20))
def test_rows_are_those_that_a_dict_would_give(ids: list[str], asked: list[str]) -> None:
    """One by one and together, known and unknown, also text that is no UTF-8."""
    row_of, plain = RowOf(texts(ids)), {one: row for row, one in enumerate(ids)}
    asked = [*asked, *ids[::2]]
    assert row_of.rows(asked).tolist() == [plain.get(one, -1) for one in asked]
    for one in asked:
        assert row_of.get(one, -1) == plain.get(one, -1) and (one in row_of) == (one in plain)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, max_size=30))
def test_texts_are_read_as_a_list_is(values: list[str]) -> None:
    found = texts(values)
    assert len(found) == len(values) and list(found) == values and found[1:4] == values[1:4]
    assert [found[row] for row in range(-len(values), len(values))] == values * 2
    with pytest.raises(IndexError):
        found[len(values)]
    with pytest.raises(IndexError):
        found[-len(values) - 1]


def test_a_part_of_a_column_is_no_more_than_that_part() -> None:
    column = pa.chunked_array([pa.array(["a", "bb", "ccc", "d"])]).slice(1, 2)
    assert list(Texts(column)) == ["bb", "ccc"] and RowOf(Texts(column)).rows(["a", "ccc", "d"]).tolist() == [-1, 1, -1]


@pytest.mark.parametrize("seed", range(4))
def test_what_changes_later_is_known_as_a_dict_and_a_list_would_know_it(seed: int) -> None:
    rng, names = random.Random(seed), [f"i{n}" for n in range(30)]
    ids = texts(names[:20])
    row_of, plain, listed = RowOf(ids), {name: row for row, name in enumerate(names[:20])}, names[:20]
    for _ in range(200):
        name = rng.choice(names)
        match rng.randrange(4):
            case 0:
                assert row_of.pop(name) == plain.pop(name, None)
            case 1:
                row_of[name] = plain[name] = rng.randrange(20)
            case 2:
                row = rng.randrange(len(listed))
                ids[row] = listed[row] = "changed" + name
            case _ if len(listed) < 25:
                ids.append(name)
                listed.append(name)
        assert list(ids) == listed and ids[-1] == listed[-1]
        assert row_of.rows(names).tolist() == [plain.get(one, -1) for one in names] and len(row_of) == len(plain)
        with pytest.raises(KeyError):
            row_of["never"]


def test_iterating_gives_each_id_that_has_a_row_once() -> None:
    row_of = RowOf(texts(["a", "b", "c"]))
    row_of.pop("b")
    row_of.pop("c")
    row_of["c"], row_of["new"] = 2, 3
    assert sorted(row_of) == ["a", "c", "new"]


def test_a_bundle_with_an_id_twice_is_refused_by_one_line_that_names_it(tmp_path: Path) -> None:
    trained = make_trained(5)
    ids = pa.array(["x", "y", "z", "y", "w"])
    object.__setattr__(trained, "items", trained.items.set_column(0, "item_id", ids))
    with pytest.raises(BundleError, match=r"items\.parquet: column item_id has 'y' twice"):
        save(trained, tmp_path, "default", {})
    assert load_bundle(save(make_trained(5), tmp_path, "default", {})).items.ids[:2] == ["i00000", "i00001"]


def test_words_of_items_are_encoded_as_each_alone_would_be() -> None:
    """Missing, unknown, numbers and truth values as words."""
    table = pa.table({"word": ["a", None, "c", "a"], "flag": [True, None, False, True], "size": [3, 1, None, 3]})
    schema = ItemSchema(
        dense=(Dense("word", "", default=7.0, vocabulary=("c", "a")),),
        categorical=(Categorical("flag", "", ("true",)), Categorical("size", "", ("1", "3"))),
    )
    dense, categorical = encode_items(table, schema)
    assert dense[:, 0].tolist() == [1.0, 7.0, 0.0, 1.0]
    np.testing.assert_array_equal(categorical, [[1, 2], [0, 1], [0, 0], [1, 2]])
