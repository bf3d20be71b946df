"""Who is in which arm of a split: sticky, in proportion, and of each experiment on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from math import sqrt
from types import SimpleNamespace
from typing import Any

import pytest

from ranking.errors import UnknownVersion
from service.figures import Counts
from service.placements import Placement
from service.router import Chosen, Router
from service.split import Split, position, position_of
from service.wire import RankRequest, RecommendRequest, Session

USERS = [f"u{n:05d}" for n in range(20_000)]


def arms(experiment: str, weights: Mapping[str, float]) -> list[str]:
    """Each user's arm."""
    split = Split(weights)
    return [split.arm(position_of(experiment, user)) for user in USERS]


@pytest.mark.parametrize("weights", [{"12": 0.9, "13": 0.1}, {"12": 0.5, "13": 0.2, "candidate": 0.3}, {"12": 1.0}])
def test_each_arm_gets_its_share(weights: dict[str, float]) -> None:
    """Within four standard deviations of the binomial distribution."""
    found = Counter(arms("ranker-13", weights))
    for arm, weight in weights.items():
        assert abs(found[arm] - weight * len(USERS)) <= 4 * sqrt(len(USERS) * weight * (1 - weight)), arm


@pytest.mark.parametrize(
    ("experiment", "user", "expected"),
    [
        ("ranker-13", "u00012", 0.10796742724704023),
        ("ranker-13", "café", 0.022609762895351215),
        ("home", "u00012", 0.9051094331478599),
    ],
)
def test_a_position_is_the_same_in_every_process_and_release(experiment: str, user: str, expected: float) -> None:
    assert position_of(experiment, user) == expected
    digest = blake2b(user.encode(), digest_size=8, key=experiment.encode()).digest()
    assert expected == pytest.approx(int.from_bytes(digest, "big") / 2**64, abs=1e-15), "as docs/models.md says"


def test_two_experiments_are_independent() -> None:
    """Pearson's chi-squared of the four cells, one degree of freedom: 10.8 is passed once in 1,000 tables."""
    pairs = Counter(zip(arms("one", {"a": 0.5, "b": 0.5}), arms("two", {"a": 0.5, "b": 0.5}), strict=True))
    rows, columns = Counter[str](), Counter[str]()
    for (one, two), count in pairs.items():
        rows[one] += count
        columns[two] += count
    expected = {(one, two): rows[one] * columns[two] / len(USERS) for one in "ab" for two in "ab"}
    assert sum((pairs[cell] - count) ** 2 / count for cell, count in expected.items()) < 10.8
    assert arms("one", {"a": 0.5, "b": 0.5}) == arms("one", {"a": 0.5, "b": 0.5})


@pytest.mark.parametrize(
    ("before", "after", "growing"),
    [
        ({"12": 0.9, "13": 0.1}, {"12": 0.8, "13": 0.2}, "13"),
        ({"12": 0.1, "13": 0.9}, {"12": 0.2, "13": 0.8}, "12"),
        ({"12": 0.5, "13": 0.1, "14": 0.4}, {"12": 0.3, "13": 0.5, "14": 0.2}, "13"),
    ],
)
def test_nobody_leaves_an_arm_that_alone_grows(before: dict[str, float], after: dict[str, float], growing: str) -> None:
    moved = {(one, two) for one, two in zip(arms("x", before), arms("x", after), strict=True) if one != two}
    assert moved and not any(one == growing for one, _ in moved)


class Loaded:
    """Versions 12 and 13 of the model `default`, of which 12 is production and 13 the candidate."""

    def __init__(self) -> None:
        self.names = {"": "12", "12": "12", "13": "13", "candidate": "13"}
        self.rollouts: dict[str, Any] = {}

    def resolve(self, model: str, version: str | None = None) -> Any:
        if (version or "") not in self.names:
            raise UnknownVersion(version)
        return SimpleNamespace(name=model, version=self.names[version or ""], key=f"{model}@{version}")


def placement(**settings: Any) -> Placement:
    return Placement({"popular": 10}, **settings)


def said(chosen: Chosen) -> tuple[str, str]:
    return chosen.model.version, chosen.group


SPLIT = placement(split={"12": 0.9, "candidate": 0.1}, experiment="ranker-13")


def router(loaded: Loaded, **placements: Placement) -> Router:
    return Router(loaded, placements, Counts("missing", "", ["placement", "arm"]))


def test_a_request_is_answered_by_its_arm_and_one_that_insists_on_a_version_by_that() -> None:
    one = router(Loaded(), home=SPLIT)
    found = {said(one.choose(SPLIT, RecommendRequest(user_id=user))) for user in USERS[:200]}
    assert found == {("12", "12"), ("13", "candidate")}
    for version, answers in (("12", "12"), ("candidate", "13")):
        assert said(one.choose(SPLIT, RecommendRequest(user_id="u1", model_version=version))) == (answers, "pinned")
    with pytest.raises(UnknownVersion):
        one.choose(SPLIT, RecommendRequest(user_id="u1", model_version="11"))
    plain = placement()
    assert said(router(Loaded(), home=plain).choose(plain, RecommendRequest(user_id="u1"))) == ("12", "default")


def test_a_shopper_has_the_same_arm_in_every_placement_of_an_experiment_and_in_rank() -> None:
    cart, other = placement(split=SPLIT.split, experiment="ranker-13"), placement(split=SPLIT.split)
    one = router(Loaded(), home=SPLIT, cart=cart, other=other)
    home = [one.choose(SPLIT, RecommendRequest(user_id=user)).group for user in USERS[:500]]
    assert home == [one.choose(cart, RankRequest(["i1"], user_id=user, placement="cart")).group for user in USERS[:500]]
    assert home != [one.choose(other, RecommendRequest(user_id=user, placement="other")).group for user in USERS[:500]]


def test_who_has_no_id_is_told_by_the_first_item_of_the_session_and_who_has_none_stands_anywhere() -> None:
    first = [position("x", RecommendRequest(session=Session(["i7", *more]))) for more in ([], ["i8"], ["i9", "i8"])]
    assert len(set(first)) == 1
    assert len({position("x", RecommendRequest(session=Session([]))) for _ in range(20)}) == 20
    assert position("x", RecommendRequest(user_id="u1", session=Session(["i7"]))) == position_of("x", "u1")


def test_a_rollouts_shares_are_nested_and_the_rest_is_its_control() -> None:
    """Who has the new version at 1 % has it at 10 % too."""
    loaded, plain = Loaded(), placement()
    one, before = router(loaded, home=plain), set[str]()
    for share in (0.0, 0.01, 0.1, 0.5, 1.0):
        loaded.rollouts = {"default": SimpleNamespace(version="13", share=share)}
        found = {user: said(one.choose(plain, RecommendRequest(user_id=user))) for user in USERS[:5000]}
        assert set(found.values()) <= {("13", "rollout"), ("12", "control")}
        now = {user for user, (version, _) in found.items() if version == "13"}
        assert before <= now and abs(len(now) - share * 5000) <= 4 * sqrt(5000 * share * (1 - share))
        before = now


def test_a_rollout_is_for_placements_on_production_that_split_nothing() -> None:
    loaded, pinned = Loaded(), placement(model="default@12")
    loaded.rollouts = {"default": SimpleNamespace(version="13", share=1.0)}
    loaded.names["12"] = "12"
    one = router(loaded, home=SPLIT, pinned=pinned)
    assert one.choose(pinned, RecommendRequest(user_id="u1", placement="pinned")).group == "default"
    assert one.choose(SPLIT, RecommendRequest(user_id="u1")).group in ("12", "candidate")


def test_an_arm_whose_version_is_not_there_is_answered_by_production_and_counted() -> None:
    loaded = Loaded()
    one = router(loaded, home=SPLIT)
    theirs = next(user for user in USERS if said(one.choose(SPLIT, RecommendRequest(user_id=user)))[0] == "13")
    del loaded.names["candidate"]
    assert said(one.choose(SPLIT, RecommendRequest(user_id=theirs))) == ("12", "candidate")
    assert one.missing.values == {("home", "candidate"): 1}
