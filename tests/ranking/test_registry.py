"""The registry: what stands for what, changed as a whole or not at all."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from msgspec.structs import replace

from ranking.errors import RegistryError
from ranking.registry import FILE, Registry, State, point, stands_for


def some_versions(models: Path, *numbers: str) -> Registry:
    for number in numbers:
        (models / "default" / number).mkdir(parents=True)
    return Registry(models)


def test_without_an_alias_the_newest_stands_and_a_retired_one_never(tmp_path: Path) -> None:
    registry = some_versions(tmp_path, "1", "2", "10")
    there = registry.versions("default")
    assert stands_for(registry.read("default"), there) == "10"
    assert stands_for(State(retired=["10"]), there) == "2"
    assert stands_for(State(retired=["10"]), there, "10") is None
    assert stands_for(State(aliases={"production": "1", "candidate": "10"}), there) == "1"
    assert stands_for(State(aliases={"production": "1", "candidate": "10"}), there, "candidate") == "10"
    assert stands_for(State(), there, "candidate") is None


def test_a_change_is_kept_with_who_why_and_what_stood_before(tmp_path: Path) -> None:
    registry = some_versions(tmp_path, "1", "2")
    there = registry.versions("default")
    for version in there:
        registry.change("default", lambda state, v=version: point(state, "production", v, there, by="me", why="test"))
    state = Registry(tmp_path).read("default")
    assert (state.generation, state.aliases) == (2, {"production": "2"})
    last = state.history[-1]
    assert (last.action, last.alias, last.before, last.version, last.by, last.why) == (
        "promote", "production", "1", "2", "me", "test",
    )  # fmt: skip
    assert last.at.tzinfo is not None
    assert [one.name for one in (tmp_path / "default").iterdir() if one.name.endswith(".partial")] == []


def test_a_version_that_does_not_exist_is_one_clear_line_and_nothing_changes(tmp_path: Path) -> None:
    registry = some_versions(tmp_path, "1")
    with pytest.raises(RegistryError, match=r"^version 7 does not exist; there are 1$"):
        registry.change("default", lambda state: point(state, "production", "7", ["1"]))
    with pytest.raises(RegistryError, match=r"^version 1 is retired; there are none$"):
        registry.change("default", lambda state: point(replace(state, retired=["1"]), "production", "1", ["1"]))
    assert not (tmp_path / "default" / FILE).exists()


def test_who_decided_on_an_older_state_is_refused(tmp_path: Path) -> None:
    registry = some_versions(tmp_path, "1", "2")
    registry.change("default", lambda state: point(state, "production", "1", ["1", "2"]), generation=0)
    before = (tmp_path / "default" / FILE).read_bytes()
    with pytest.raises(RegistryError, match=r"was changed meanwhile: promote of 1 at .*nothing was done"):
        registry.change("default", lambda state: point(state, "production", "2", ["1", "2"]), generation=0)
    assert (tmp_path / "default" / FILE).read_bytes() == before


def test_two_changes_at_once_are_one_change_and_one_clear_line(tmp_path: Path) -> None:
    registry = some_versions(tmp_path, "1", "2")
    with registry.locked("default"), pytest.raises(RegistryError, match="another change is under way"):
        Registry(tmp_path).change("default", lambda state: state)


def add(models: Path) -> None:
    done = 0
    while done < 50:
        try:
            Registry(models).change("default", lambda state: state.noted("try", "1"))
            done += 1
        except RegistryError as error:
            assert "under way" in str(error)


def test_no_change_of_several_processes_is_lost(tmp_path: Path) -> None:
    some_versions(tmp_path, "1")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add, args=(tmp_path,)) for _ in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
        assert one.exitcode == 0
    state = Registry(tmp_path).read("default")
    assert state.generation == len(state.history) == 150


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 2}', b'{"aliases": {"production": "x"}}', b"\xff"])
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    registry = some_versions(tmp_path, "1")
    path = tmp_path / "default" / FILE
    path.write_bytes(content)
    with pytest.raises(RegistryError, match=r"aliases\.json: "):
        registry.change("default", lambda state: state)
    assert path.read_bytes() == content
