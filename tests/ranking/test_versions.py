"""Loaded versions: whose items there are."""

from __future__ import annotations

from pathlib import Path

from ranking.live import LiveItems
from ranking.registry import Registry
from ranking.train.save import save
from ranking.versions import Versions, load_versions
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
