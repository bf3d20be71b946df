"""What training saw of a feature, and how far others are from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from ranking.bundle import MANIFEST, load_bundle, read_manifest
from ranking.errors import BundleError
from ranking.schema import Categorical, Dense, History, UserSchema
from ranking.statistics import Bins, Numbers, Words, made_of, psi, statistics_of
from ranking.train.save import save
from tests.ranking.factory import CATEGORIES, COUNTRIES, make_bundle, make_trained

AGE = Dense("p:age", "Int64")
SPEND = Dense("p:spend", "Float32")
PLAN = Dense("p:plan", "String", vocabulary=("free", "pro"))
COUNTRY = Categorical("p:country", "String", ("DE", "FR"))
SCHEMA = UserSchema("mine", (AGE, SPEND, PLAN), (COUNTRY,), History("r:items", "Array(String)", 5))


def columns(rows: int = 1000, seed: int = 0) -> dict[str, list[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "p:age": [int(one) for one in rng.integers(18, 80, rows)],
        "p:spend": [float(one) if one > 20 else None for one in rng.lognormal(3, 1, rows)],
        "p:plan": rng.choice(["free", "pro", "gone"], rows).tolist(),
        "p:country": [str(one) or None for one in rng.choice(["DE", "FR", "XX", ""], rows)],
    }


def index(one: Dense | Categorical, trained: list[Any], live: list[Any]) -> float:
    """The index of live raw values against training's, by the product's own bins."""
    schema = msgspec.structs.replace(SCHEMA, dense=(), categorical=())
    kept = {"dense": (one,)} if isinstance(one, Dense) else {"categorical": (one,)}
    bins = Bins(one, statistics_of(msgspec.structs.replace(schema, **kept), {one.source: trained})[one.source])
    counts = np.bincount([bins.place(made_of(one, value)) for value in live], minlength=len(bins))
    return psi(bins.trained, (counts / counts.sum()).tolist())


def test_the_index_equals_one_computed_by_hand() -> None:
    """Three bins of 50, 30 and 20 %, and 40, 30 and 30 % of them live; an empty bin stands for a share of 1e-4."""
    by_hand = -0.1 * math.log(0.4 / 0.5) + 0.1 * math.log(0.3 / 0.2)
    assert psi([0.5, 0.3, 0.2], [0.4, 0.3, 0.3]) == pytest.approx(by_hand) == pytest.approx(0.06286, abs=1e-5)
    assert psi([0.5, 0.3, 0.2], [0.5, 0.3, 0.2]) == 0
    emptied = 0.5 * math.log(1 / 0.5) + (1e-4 - 0.5) * math.log(1e-4 / 0.5)
    assert psi([0.5, 0.5, 0.0], [1.0, 0.0, 0.0]) == pytest.approx(emptied)


def test_a_numbers_bins_hold_a_tenth_each_and_the_shares_are_of_all_rows() -> None:
    found = statistics_of(SCHEMA, columns())["p:spend"]
    assert isinstance(found, Numbers) and found.examples == 1000
    missing = sum(one is None for one in columns()["p:spend"]) / 1000
    assert found.missing == pytest.approx(missing) and len(found.shares) == 10
    assert np.allclose(found.shares, (1 - missing) / 10, atol=0.002)
    assert found.least is not None and found.p1 is not None and found.p99 is not None and found.most is not None
    assert 20 < found.least < found.p1 < found.edges[0] < found.edges[-1] < found.p99 < found.most


def test_what_a_model_takes_for_missing_is_missing() -> None:
    """None, no number, infinity; a word outside of a dense vocabulary, but not one outside of a categorical one."""
    for value in (None, "text", math.nan, math.inf, -math.inf):
        assert made_of(AGE, value) is None
    assert [made_of(PLAN, value) for value in (None, "", "gone", "pro")] == [None, None, None, "pro"]
    assert [made_of(COUNTRY, value) for value in (None, "", "XX", "DE")] == [None, None, "XX", "DE"]
    found = statistics_of(SCHEMA, columns())
    gone = sum(one == "gone" for one in columns()["p:plan"]) / 1000
    assert found["p:plan"].missing == pytest.approx(gone) and set(found["p:plan"].shares) == {"free", "pro"}
    country = found["p:country"]
    assert isinstance(country, Words) and set(country.shares) == {"DE", "FR", "XX"} and country.rest == 0


def test_the_commonest_words_are_named_and_those_of_one_row_never() -> None:
    column = [f"w{n}" for n in range(60) for _ in range(60 - n)]
    found = statistics_of(msgspec.structs.replace(SCHEMA, dense=()), {"p:country": column})["p:country"]
    assert isinstance(found, Words) and list(found.shares) == [f"w{n}" for n in range(50)]
    assert found.rest == pytest.approx(sum(range(1, 11)) / len(column))
    assert Bins(COUNTRY, found).names[-1] == "(others)"
    rare = statistics_of(msgspec.structs.replace(SCHEMA, dense=()), {"p:country": ["DE", "DE", "me@home"]})["p:country"]
    assert isinstance(rare, Words) and list(rare.shares) == ["DE"] and rare.rest == pytest.approx(1 / 3)


def test_the_same_distribution_is_the_same_and_a_shift_is_not() -> None:
    """Of every kind of input; of a thousand rows each."""
    trained, live = columns(seed=1), columns(seed=2)
    for one in (AGE, SPEND, PLAN, COUNTRY):
        assert index(one, trained[one.source], live[one.source]) < 0.1
        assert index(one, trained[one.source], [None] * 200 + live[one.source][200:]) > 0.05
    assert index(AGE, trained["p:age"], [one + 25 for one in live["p:age"]]) > 0.25
    assert index(COUNTRY, trained["p:country"], ["FR" if one == "DE" else one for one in live["p:country"]]) > 0.25


@pytest.mark.parametrize("moved", [-1, 1])
def test_a_number_that_never_varied_in_training_is_seen_to_move(moved: int) -> None:
    assert index(AGE, [7] * 300, [7] * 300) == 0
    assert index(AGE, [7] * 300, [7 + moved] * 300) > 1
    assert index(AGE, [0] * 200 + [3] * 100, [0] * 200 + [3] * 100) == 0


def test_bins_are_named_as_people_write_them() -> None:
    def names(values: list[int]) -> list[str]:
        found = statistics_of(msgspec.structs.replace(SCHEMA, dense=(AGE,), categorical=()), {"p:age": list(values)})
        return Bins(AGE, found["p:age"]).names

    assert names([0] * 9 + [5]) == ["missing", "< 0", "0", "> 0"]
    assert names([1, 2, 3, 4]) == ["missing", "< 1", "1", "1 to 2", "2 to 3", "3 to 4", "> 4"]
    assert names(list(range(100)))[:3] == ["missing", "≤ 9", "9 to 19"]


def test_a_float32_is_binned_as_the_online_store_gives_it() -> None:
    """0.1 in a float64 source is 0.10000000149 in the store, and is in the bin that ends at it."""
    trained = [0.1] * 500 + [0.7] * 500
    assert index(SPEND, trained, [float(np.float32(one)) for one in trained]) == 0


def test_how_many_answers_it_takes_depends_on_the_bins() -> None:
    """Fifty words are noisier than ten tenths; of a small training nothing is ever said."""
    words = [f"w{n % 50}" for n in range(100_000)]
    country = statistics_of(msgspec.structs.replace(SCHEMA, dense=()), {"p:country": words})["p:country"]
    assert Bins(COUNTRY, country).needed() == pytest.approx(49 / 0.05, rel=0.02)
    assert Bins(AGE, statistics_of(SCHEMA, columns(10_000))["p:age"]).needed() == 200
    assert Bins(AGE, statistics_of(SCHEMA, columns(50))["p:age"]).needed() is None
    assert Bins(AGE, None).needed() is None


def counted() -> dict[str, Any]:
    """Statistics that fit the factory's models."""
    trained = make_trained(50)
    rng = np.random.default_rng(3)
    found: dict[str, list[Any]] = {one.source: rng.poisson(3, 400).tolist() for one in trained.user.dense}
    found["user_profile:country"] = rng.choice(COUNTRIES, 400).tolist()
    found["user_profile:top_category"] = rng.choice(CATEGORIES, 400).tolist()
    return statistics_of(trained.user, found)


def test_statistics_outlive_a_bundle_on_disk(tmp_path: Path) -> None:
    trained = make_trained(50)
    object.__setattr__(trained, "statistics", counted())
    assert load_bundle(save(trained, tmp_path, "default", {})).statistics == counted()


def test_a_bundle_of_before_statistics_were_kept_loads_without(tmp_path: Path) -> None:
    path = make_bundle(tmp_path, 50)
    manifest = msgspec.json.decode((path / MANIFEST).read_bytes())
    del manifest["statistics"]
    (path / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    assert load_bundle(path).statistics == {}


TENURE = "user_profile:tenure_days"
BAD: dict[str, tuple[Any, str]] = {
    "shares do not come to 1": (lambda found: found[TENURE].update(missing=0.5), "shares come to 1.5, not 1"),
    "edges fall": (lambda found: found[TENURE]["edges"].reverse(), "edges do not rise"),
    "a share is gone": (lambda found: found[TENURE]["shares"].pop(), "shares for"),
    "no such input": (
        lambda found: found.update({"user_profile:age": found[TENURE]}),
        "user_profile:age, which is no input",
    ),
    "another kind": (
        lambda found: found.update({TENURE: found["user_profile:country"]}),
        f"{TENURE} are of another kind",
    ),
    "one is missing": (lambda found: found.pop(TENURE), f"no statistics of {TENURE}"),
    "unknown kind": (lambda found: found[TENURE].update(kind="colours"), "colours"),
    "quantiles fall": (lambda found: found[TENURE].update(least=99.0), "least, p1, p99 and most do not rise"),
    "nobody": (lambda found: found[TENURE].update(examples=0), "statistics of 0 examples"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bundle_whose_statistics_are_damaged_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    damage, said = BAD[case]
    trained = make_trained(50)
    object.__setattr__(trained, "statistics", counted())
    path = save(trained, tmp_path, "default", {})
    manifest = msgspec.json.decode((path / MANIFEST).read_bytes())
    damage(manifest["statistics"])
    (path / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(BundleError) as refused:
        read_manifest(path)
    assert said in str(refused.value) and "\n" not in str(refused.value) and "manifest.json" in str(refused.value)
