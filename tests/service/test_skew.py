"""What is served beside what training saw: a shift is seen where it is, and nowhere else."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from ranking.schema import Categorical, Dense, History, UserSchema
from ranking.statistics import Statistics, statistics_of
from service.answered import Answered
from service.errors import NotReady
from service.metrics import Metrics
from service.skew import LATEST, Skew
from service.skew_counts import CountedFolder
from service.skew_wire import FeatureSkew, SkewReport, VersionSkew
from service.wire import RecommendRequest
from tests.service.conftest import Client

AGE, SPEND, PLAN, COUNTRY = "p:age", "p:spend", "p:plan", "p:country"
SCHEMA = UserSchema(
    "mine",
    (Dense(AGE, "Int64"), Dense(SPEND, "Float64"), Dense(PLAN, "String", vocabulary=("free", "pro"))),
    (Categorical(COUNTRY, "String", ("DE", "FR")),),
    History("r:items", "Array(String)", 5),
)
START = 1_000_000.0


def shoppers(count: int, seed: int) -> list[dict[str, Any]]:
    """Raw values of shoppers, all of one distribution. One in ten has not said what country it is of."""
    rng = np.random.default_rng(seed)
    return [
        {AGE: int(rng.integers(18, 80)), SPEND: float(rng.lognormal(3, 1)), PLAN: str(rng.choice(["free", "pro"]))}
        | ({COUNTRY: str(rng.choice(["DE", "FR", "IT"]))} if rng.random() < 0.9 else {})
        for _ in range(count)
    ]


def trained(rows: list[dict[str, Any]]) -> dict[str, Statistics]:
    return statistics_of(SCHEMA, {name: [row.get(name) for row in rows] for name in (AGE, SPEND, PLAN, COUNTRY)})


@dataclass
class Loaded:
    """A loaded version."""

    statistics: dict[str, Statistics]
    version: str = "1"
    name: str = "default"
    schema: UserSchema = field(default=SCHEMA)


def answered(values: dict[str, Any], version: str = "1", **request: Any) -> Answered:
    asked = RecommendRequest(**({"user_id": "u1"} | request))
    return Answered("r", START, "recommend", asked, "default", version, "default", values, {}, [], {}, [], {}, 1.0, 1)


class Played:
    """Skew over versions of a model, and a clock in the test's hands."""

    def __init__(self, *loaded: Loaded) -> None:
        self.loaded, self.now = list(loaded) or [Loaded(trained(shoppers(5000, 0)))], START
        self.skew = Skew(lambda: self.loaded, lambda: self.now)

    def serve(self, rows: list[dict[str, Any]], version: str = "1", **request: Any) -> None:
        """As many answers a second as are looked at."""
        for start in range(0, len(rows), LATEST):
            for row in rows[start : start + LATEST]:
                self.skew.add(answered(row, version, **request))
            self.skew.count()
            self.now += 1

    def version(self) -> VersionSkew:
        (one,) = self.skew.report().versions
        return one

    def features(self) -> dict[str, FeatureSkew]:
        return {one.feature: one for one in self.version().features}


def test_the_same_shoppers_are_the_same() -> None:
    played = Played()
    played.serve(shoppers(1000, 1))
    found = played.features()
    assert list(found) == [AGE, SPEND, PLAN, COUNTRY] and played.version().answers == 1000
    for one in found.values():
        assert one.psi is not None and 0 <= one.psi < 0.1 and one.verdict == "same"
        assert one.by_chance is not None and 0 < one.by_chance < 0.02
        assert sum(each.live or 0 for each in one.bins) == pytest.approx(1) == sum(each.trained for each in one.bins)


SHIFTS: dict[str, Any] = {
    AGE: lambda value: value + 30,
    SPEND: lambda value: value * 100,  # somebody tells cents
    PLAN: lambda value: "gone",
    COUNTRY: lambda value: "FR",
}


@pytest.mark.parametrize("moved", SHIFTS)
def test_a_planted_shift_is_seen_there_and_nowhere_else(moved: str) -> None:
    played = Played()
    rows = [{**row, **({moved: SHIFTS[moved](row[moved])} if moved in row else {})} for row in shoppers(1000, 1)]
    played.serve(rows)
    assert {name: one.verdict for name, one in played.features().items()} == {
        name: "shifted" if name == moved else "same" for name in SHIFTS
    }
    extent = played.features()[SPEND].extent
    assert extent is not None and extent.above_p99 is not None
    assert (extent.above_p99 > 0.5) == (moved == SPEND)


def test_what_is_missing_is_counted_beside_what_training_missed() -> None:
    """A key that is not there, None, and what is no number alike: a default stands in for each."""
    played = Played()
    rows = shoppers(600, 1)
    for n, row in enumerate(rows):
        row |= {AGE: None} if n % 3 == 0 else {AGE: "old"} if n % 3 == 1 else {}
    played.serve([{name: value for name, value in row.items() if name != SPEND} for row in rows])
    found = played.features()
    assert found[AGE].missing.live == pytest.approx(2 / 3) and found[SPEND].missing.live == 1
    assert found[AGE].missing.trained == found[SPEND].missing.trained == 0
    assert found[COUNTRY].missing.trained == pytest.approx(0.1, abs=0.02)
    assert found[AGE].verdict == found[SPEND].verdict == "shifted" and found[COUNTRY].verdict == "same"
    live = [one.missing.live for one in found.values()]
    assert played.version().defaulted.live == pytest.approx(sum(one or 0 for one in live) / 4)
    assert played.version().defaulted.trained == pytest.approx(0.025, abs=0.005)


def test_nothing_is_said_of_few_answers() -> None:
    """But the shares are there, and how many it takes."""
    played = Played()
    assert played.features()[AGE].missing.live is None and played.features()[AGE].by_chance is None
    played.serve([{}] * 199)
    one = played.features()[AGE]
    assert (one.psi, one.verdict, one.needed, one.missing.live) == (None, None, 200, 1.0)
    played.serve([{}])
    assert played.features()[AGE].verdict == "shifted"


def test_who_is_nobody_has_no_features_to_miss() -> None:
    """An answer without a user id counts only where its context brought features along."""
    played = Played()
    played.serve([{}] * 30, user_id=None)
    played.serve([{AGE: 30}] * 20, user_id=None, context={"age": 30})
    assert (played.version().answers, played.version().anonymous) == (20, 30)


def test_an_hour_is_looked_back_at_and_no_more() -> None:
    played = Played()
    played.serve([{AGE: 900}] * 300)
    played.now += 3600 - 120
    assert played.version().answers == 300 and played.features()[AGE].extent.live_most == 900  # type: ignore[union-attr]
    played.now += 120
    assert played.version().answers == 0, "also where nobody has asked since"
    played.serve([{AGE: 40}] * 10)
    assert played.version().answers == 10 and played.features()[AGE].extent.live_most == 40  # type: ignore[union-attr]
    assert len(played.skew.windows["default", "1"].minutes) == 1, "what is over is let go"


def test_of_a_busy_second_the_latest_are_looked_at_of_each_version() -> None:
    played = Played(Loaded({}, "1"), Loaded({}, "2"))
    for n in range(10_000):
        played.skew.add(answered({AGE: 30}))
        if n % 1000 == 0:
            played.skew.add(answered({AGE: 30}, "2"))
    assert {one.version: one.answers for one in played.skew.report().versions} == {"1": LATEST, "2": 10}


def test_a_bundle_without_statistics_says_so_and_still_counts_what_is_missing() -> None:
    played = Played(Loaded({}))
    played.serve([{AGE: 30, SPEND: 1.0, PLAN: "pro", COUNTRY: "DE"}] * 150 + [{AGE: 30}] * 150)
    one = played.version()
    assert one.note is not None and "no training statistics" in one.note
    assert (one.answers, one.examples, one.defaulted.live, one.defaulted.trained) == (300, None, 0.375, None)
    for feature in one.features:
        assert (feature.psi, feature.verdict, feature.needed, feature.bins, feature.extent) == (
            None,
            None,
            None,
            [],
            None,
        )


def test_versions_come_and_go() -> None:
    """What answers from a version that is no longer loaded is let go."""
    played = Played(Loaded({}, "1"))
    played.serve([{}] * 10)
    played.loaded.append(Loaded({}, "2"))
    played.serve([{}] * 5, "2")
    assert [(one.version, one.answers) for one in played.skew.report().versions] == [("1", 10), ("2", 5)]
    del played.loaded[0]
    played.serve([{}] * 5, "1")
    assert [(one.version, one.answers) for one in played.skew.report().versions] == [("2", 5)]
    played.loaded.clear()
    with pytest.raises(NotReady):
        played.skew.report()


def test_two_workers_add_up_and_one_that_died_is_gone(tmp_path: Path) -> None:
    """Their figures are those of one that saw all answers."""
    rows = shoppers(900, 1)
    alone, first, second = Played(), Played(), Played()
    first.skew.folder = CountedFolder(tmp_path)
    for played, part in ((alone, rows), (first, rows[:300]), (second, rows[300:])):
        played.serve(part)
        played.now = START + 60
    first.skew.folder.write(4711, second.skew.mine())
    first.skew.folder.write(os.getpid(), first.skew.mine())  # what the others read of it
    both = first.skew.report()
    assert both.workers == 2 and both.versions == alone.skew.report().versions
    first.skew.folder.end(4711)
    assert first.version().answers == 300 and first.skew.report().workers == 1


def test_gauges_are_of_all_workers_and_are_not_added_up_again(tmp_path: Path) -> None:
    played, other, metrics = Played(), Played(), Metrics()
    played.skew.folder = CountedFolder(tmp_path)
    metrics.whole = played.skew.families
    played.serve(shoppers(500, 1))
    other.serve(shoppers(500, 2))
    played.skew.folder.write(4711, other.skew.mine())
    metrics.others = lambda: [metrics.snapshot()]
    text, labels = metrics.text()[0].decode(), 'model="default",version="1"'
    assert f"endcap_skew_answers{{{labels}}} 1000.0" in text
    for name, one in played.features().items():
        assert f'endcap_feature_psi{{feature="{name}",{labels}}} {one.psi}' in text
        assert f'endcap_feature_missing_share{{feature="{name}",{labels}}} {one.missing.live}' in text
    assert f"endcap_defaulted_share{{{labels}}} {played.version().defaulted.live}" in text
    assert not any("psi" in family.name for family in metrics.snapshot())


async def test_the_service_tells_of_its_versions_as_the_document_says(client: Client) -> None:
    """Those of the tests have no statistics, as an old bundle has none: that is said, and is no error."""
    for n in range(12):
        await client.recommend(user_id=f"u{n}")
    await client.recommend(session={"item_ids": ["i00001"]})
    status, text = await client.get("/v1/skew")
    found = json.loads(text)
    assert status == 200
    document = json.loads((await client.get("/openapi.json"))[1])
    schema = document["paths"]["/v1/skew"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(found, {**schema, "components": document["components"]})
    served = found["versions"][-1]
    assert (served["answers"], served["anonymous"]) == (12, 1) and "no training statistics" in served["note"]
    assert {one["feature"] for one in served["features"]} >= {"user_profile:country", "user_activity:views_1h"}
    missing = {one["feature"]: one["missing"] for one in served["features"]}
    assert missing["user_activity:views_1h"] == {"live": 0, "trained": None} and served["defaulted"]["live"] < 0.05
    assert (
        f'endcap_skew_answers{{model="default",version="{served["version"]}"}} 12.0'
        in (await client.get("/metrics"))[1]
    )


async def test_before_a_model_is_loaded_nothing_can_be_said() -> None:
    with pytest.raises(NotReady):
        Skew(list).report()
    assert isinstance(Played().skew.report(), SkewReport)
