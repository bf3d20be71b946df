"""What differs between two bundles, section by section, and what does not count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ranking.compare import Comparison, compare
from ranking.errors import BundleError
from ranking.index import IndexRecipe
from ranking.schema import Categorical, Dense
from ranking.train.save import Trained, save
from tests.ranking.factory import make_bundle, make_trained


def saved(models: Path, items: int = 40, metrics: dict[str, dict[str, float]] | None = None, **user: Any) -> Path:
    trained = make_trained(items)
    object.__setattr__(trained, "user", msgspec.structs.replace(trained.user, **user))
    return save(trained, models, "default", metrics or {})


def schema() -> Any:
    return make_trained(40).user


def compared(tmp_path: Path, **changes: Any) -> Comparison:
    return compare(saved(tmp_path), saved(tmp_path, **changes))


def test_two_versions_of_the_same_are_the_same_whatever_their_number_and_time(tmp_path: Path) -> None:
    found = compare(make_bundle(tmp_path, 40), make_bundle(tmp_path, 40))
    assert not found.differs and not found.sections and "user features" in found.same and "item ids" in found.same


def test_a_feature_that_went_one_that_came_and_one_that_is_encoded_otherwise(tmp_path: Path) -> None:
    first, second, *others = schema().dense
    changed = msgspec.structs.replace(first, mean=4.0, scale=0.5)
    new = Dense("user_profile:age", "Int64", "identity", 40.0)
    section = compared(tmp_path, dense=(changed, new, *others)).sections["user features"]
    assert list(section.removed) == [f"{second.source} (dense)"] and list(section.added) == ["user_profile:age (dense)"]
    fields = section.changed[f"{first.source} (dense)"]
    assert (fields["mean"].a, fields["mean"].b, fields["mean"].difference) == (3.0, 4.0, 1.0)
    assert set(fields) == {"mean", "scale"} and not section.reordered


def test_a_vocabulary_tells_its_words_that_came_and_went_and_whether_others_moved(tmp_path: Path) -> None:
    country, other = schema().categorical
    words = ("Germany", "France", "Spain")
    section = compared(tmp_path, categorical=(Categorical(country.source, "String", words), other)).sections
    change = section["user features"].changed[f"{country.source} (categorical)"]["vocabulary"]
    assert (change.a, change.b, change.words_added) == (3, 3, ("Spain",))
    assert change.words_removed == ("United Kingdom",) and change.moved


def test_a_word_at_the_end_moves_no_other(tmp_path: Path) -> None:
    country, other = schema().categorical
    longer = Categorical(country.source, "String", (*country.vocabulary[:-1], "Spain"))
    change = compared(tmp_path, categorical=(longer, other)).sections["user features"].changed
    assert not change[f"{country.source} (categorical)"]["vocabulary"].moved


def test_the_same_features_in_another_order_differ(tmp_path: Path) -> None:
    """The order is what a model's columns are."""
    section = compared(tmp_path, dense=tuple(reversed(schema().dense))).sections["user features"]
    assert section.reordered and not section.added and not section.changed


def test_max_ages_and_metrics_differ_by_so_much(tmp_path: Path) -> None:
    ages = {**schema().max_age_s, "user_activity": 60.0}
    before = saved(tmp_path, metrics={"ours": {"recall@10": 0.25}})
    found = compare(before, saved(tmp_path, metrics={"ours": {"recall@10": 0.5, "mrr": 0.1}}, max_age_s=ages)).sections
    assert found["max age"].changed["user_activity"]["seconds"].difference == -3540.0
    assert found["metrics"].changed["ours recall@10"]["value"].difference == 0.25
    assert found["metrics"].added == {"ours mrr": {"value": 0.1}}


def test_items_that_came_are_counted_and_ten_of_them_named(tmp_path: Path) -> None:
    found = compare(make_bundle(tmp_path, 40), make_bundle(tmp_path, 60)).items
    assert found is not None and (found.a, found.b, found.added, found.removed) == (40, 60, 20, 0)
    assert found.some_added == tuple(f"i{n:05d}" for n in range(40, 50)) and not found.reordered


def test_items_in_another_order_differ_though_none_came_or_went(tmp_path: Path) -> None:
    trained: Trained = make_trained(40)
    object.__setattr__(trained, "items", trained.items.take(list(range(39, -1, -1))))
    found = compare(make_bundle(tmp_path, 40), save(trained, tmp_path, "default", {})).items
    assert found is not None and found.reordered and not found.added


def test_another_index_recipe_and_what_searches_it(tmp_path: Path) -> None:
    one, other = make_trained(40), make_trained(40)
    object.__setattr__(other, "index", IndexRecipe("HNSW8", 1))
    section = compare(*(save(each, tmp_path, "default", {}) for each in (one, other))).sections["index"]
    assert (section.changed["factory"]["value"].b, section.changed["search"]["value"].b) == ("HNSW8", "faiss")


def test_item_ids_that_cannot_be_read_are_one_line_where_they_are_needed(tmp_path: Path) -> None:
    one, other = make_bundle(tmp_path, 40), make_bundle(tmp_path, 60)
    (other / "items.parquet").write_bytes(b"none")
    with pytest.raises(BundleError, match=r"items.parquet: its ids cannot be read"):
        compare(one, other)
