"""Loaded versions: whose items there are."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from ranking.live import LiveItems
from ranking.registry import Registry, Rollout, State, point
from ranking.train.save import save
from ranking.versions import Target, Versions, load_versions, target
from tests.ranking.factory import make_trained


def two_versions(models: Path) -> Versions:
    for size in (30, 50):
        save(make_trained(size), models, "default", {})
    return load_versions(Registry(models), ["default"], keep=2)


def test_the_ids_of_every_versions_items_come_once(tmp_path: Path) -> None:
    assert list(two_versions(tmp_path).item_ids()) == [f"i{n:05d}" for n in range(50)]


def test_an_item_that_is_added_while_ids_are_gone_through_comes_too(tmp_path: Path) -> None:
    """Into all versions; a service goes on taking in changes for the seconds that a million ids take."""
    versions = two_versions(tmp_path)
    ids = versions.item_ids()
    first = next(ids)
    for bundle in versions.all():
        LiveItems(bundle).apply([("new", {"title": "A new one"})])
    assert sorted([first, *ids]) == sorted([*(f"i{n:05d}" for n in range(50)), "new"])


def a_target(state: State, current: dict[str, str], there: str = "123", keep: int = 1) -> Target:
    return target("m", state, list(there), keep, current)


def test_what_answers_is_loaded_first_then_what_stood_there_before(tmp_path: Path) -> None:
    promoted = point(State(aliases={"production": "1", "candidate": "3"}), "production", "2", list("123"))
    found = a_target(promoted, {"m": "1", "m@candidate": "1", "other": "7"})
    assert found.current == {"m": "2", "m@production": "2", "m@candidate": "3"} and found.nameless == []
    assert found.needed == ["2", "3", "1"]


def test_without_a_word_on_production_what_answers_stays_also_where_there_is_a_newer_one() -> None:
    assert a_target(State(aliases={"candidate": "3"}), {"m": "1"}).current["m"] == "1"
    assert a_target(State(retired=["1"]), {"m": "1"}).current == {"m": "3"}


def test_a_name_that_stands_for_nothing_any_more_stays_on_what_it_was() -> None:
    found = a_target(State(), {"m@candidate": "2", "m@7": "1"})
    assert (found.current, found.nameless) == ({"m@candidate": "2", "m@7": "1"}, ["m@candidate", "m@7"])


def test_a_rollout_is_under_way_where_its_version_may_answer() -> None:
    rollout = Rollout("2", 0.1, datetime.now(UTC))
    state = State(aliases={"production": "1"}, rollout=rollout)
    assert a_target(state, {"m": "1"}).rollout == rollout and "2" in a_target(state, {"m": "1"}).needed
    assert a_target(replace(state, retired=["2"]), {"m": "1"}).rollout is None
