"""Where models lie: a directory and an object store do the same for a registry."""

from __future__ import annotations

import multiprocessing
import secrets
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from ranking.bundle import load_bundle
from ranking.errors import BundleError, RegistryBusy, RegistryError, RegistryUnavailable
from ranking.object_lock import EXPIRES_S, MARGIN_S
from ranking.object_store import ObjectStore
from ranking.registry import Registry, open_registry, point
from ranking.train.save import save
from tests.ranking.factory import make_trained


@pytest.fixture(params=["directory", "file", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    where = {
        "directory": "models",
        "file": f"file://{tmp_path}/models",
        "memory": f"memory://{secrets.token_hex(4)}/models",
    }[request.param]
    return open_registry(where, tmp_path, tmp_path / "cache")


@pytest.fixture
def store(tmp_path: Path) -> Registry:
    return Registry(ObjectStore(f"memory://{secrets.token_hex(4)}/models", tmp_path / "cache"))


def again(registry: Registry, cache: Path) -> Registry:
    """The same store from another machine."""
    assert isinstance(registry.storage, ObjectStore)
    return Registry(ObjectStore(registry.storage.url, cache))


def train(registry: Registry, name: str = "default") -> Path:
    return registry.publish(name, lambda models: save(make_trained(30), models, name, {"model": {"recall@10": 0.5}}))


def path_of(registry: Registry, file: str) -> str:
    return f"{registry.home('default')}/1/{file}"


def test_versions_are_published_one_after_another_and_load(registry: Registry) -> None:
    assert registry.names() == [] and registry.versions("default") == []
    assert [train(registry).name for _ in range(2)] == ["1", "2"]
    train(registry, "other")
    assert registry.names() == ["default", "other"] and registry.versions("default") == ["1", "2"]
    bundle = load_bundle(registry.fetch("default", "2"))
    assert bundle.key == "default@2"
    assert registry.manifest("default", "2") == bundle.manifest
    assert registry.storage.size("default", "2") == sum(one.stat().st_size for one in bundle.path.iterdir())


def test_a_change_is_seen_whole_and_its_stamp_is_another(registry: Registry) -> None:
    train(registry)
    assert registry.read("default").generation == 0
    stamps = [registry.stamp("default")]
    for _ in range(3):
        registry.change("default", lambda state: point(state, "production", "1", ["1"]))
        stamps.append(registry.stamp("default"))
        assert stamps[-1] == registry.stamp("default")
    assert len(set(stamps)) == 4 and registry.read("default").generation == 3


def test_two_changes_at_once_are_one_change_and_one_clear_line(registry: Registry) -> None:
    train(registry)
    with (
        registry.locked("default"),
        pytest.raises(RegistryBusy, match=r"another change is under way.*nothing was done"),
    ):
        registry.change("default", lambda state: state)
    assert registry.change("default", lambda state: state).generation == 1


def test_a_failed_edit_changes_nothing_and_leaves_no_lock(registry: Registry) -> None:
    train(registry)
    with pytest.raises(RegistryError, match="version 7 does not exist"):
        registry.change("default", lambda state: point(state, "production", "7", ["1"]))
    assert registry.stamp("default") is None
    assert registry.change("default", lambda state: state).generation == 1


def test_a_removed_version_keeps_its_number_and_its_manifest(registry: Registry) -> None:
    train(registry)
    registry.storage.remove("default", "1")
    assert registry.versions("default") == ["1"] and registry.manifest("default", "1").version == "1"
    with pytest.raises(BundleError, match="is missing"):
        load_bundle(registry.fetch("default", "1"))
    assert train(registry).name == "2"


def test_a_publication_that_fails_leaves_nothing_behind_and_the_next_one_has_its_number(registry: Registry) -> None:
    def fails(models: Path) -> Path:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        registry.publish("default", fails)
    assert registry.versions("default") == []
    assert train(registry).name == "1"


def test_another_machine_fetches_what_was_published_once(store: Registry, tmp_path: Path) -> None:
    train(store)
    there = again(store, tmp_path / "there")
    path = there.fetch("default", "1")
    assert path == tmp_path / "there" / "default" / "1" and load_bundle(path).key == "default@1"
    fsspec.filesystem("memory").rm_file(path_of(store, "embeddings.npy"))
    assert there.fetch("default", "1") == path  # not asked for again
    assert sorted(one.name for one in path.parent.iterdir()) == [".1.lock", "1"]


def test_a_cached_version_that_is_another_one_by_now_is_fetched_again(store: Registry, tmp_path: Path) -> None:
    """Somebody emptied the store and began anew."""
    train(store)
    there = again(store, tmp_path / "there")
    first = there.manifest("default", there.fetch("default", "1").name)
    fsspec.filesystem("memory").rm(store.home("default"), recursive=True)
    store.publish("default", lambda models: save(make_trained(31, seed=5), models, "default", {}))
    assert load_bundle(there.fetch("default", "1")).manifest != first


@pytest.mark.parametrize("how", ["flipped", "short", "missing"])
def test_what_is_damaged_in_the_store_is_named_and_not_kept(store: Registry, tmp_path: Path, how: str) -> None:
    train(store)
    fs, path = fsspec.filesystem("memory"), path_of(store, "items.parquet")
    content = bytearray(fs.cat_file(path))
    content[100] ^= 1
    if how == "missing":
        fs.rm_file(path)
    else:
        fs.pipe_file(path, bytes(content if how == "flipped" else content[:50]))
    with pytest.raises(BundleError, match=rf"^{store.home('default')}/1: items\.parquet: "):
        again(store, tmp_path / "there").fetch("default", "1")
    assert [one.name for one in (tmp_path / "there" / "default").iterdir()] == [".1.lock"]


def test_a_manifest_that_names_a_file_elsewhere_is_refused(store: Registry, tmp_path: Path) -> None:
    train(store)
    fs, path = fsspec.filesystem("memory"), path_of(store, "manifest.json")
    fs.pipe_file(path, fs.cat_file(path).replace(b'"items.parquet"', b'"../../items.parquet"'))
    with pytest.raises(BundleError, match="is no name of a file in a bundle"):
        again(store, tmp_path / "there").fetch("default", "1")
    assert not (tmp_path / "items.parquet").exists()


def test_without_its_manifest_a_version_does_not_exist(store: Registry) -> None:
    train(store)
    fsspec.filesystem("memory").rm_file(path_of(store, "manifest.json"))
    assert store.versions("default") == [] and store.names() == []
    with pytest.raises(BundleError, match=r"default/1: manifest\.json: no such file"):
        store.fetch("default", "1")


def test_a_number_that_another_is_publishing_is_left_to_it(store: Registry) -> None:
    """Both upload; neither into the other's version."""

    def slowly(models: Path) -> Path:
        assert train(store).name == "2"
        return save(make_trained(30), models, "default", {})

    assert store.publish("default", slowly).name == "1"
    assert store.versions("default") == ["1", "2"] and train(store).name == "3"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def two(tmp_path: Path) -> tuple[Clock, Registry, Registry]:
    """A store of one version, seen from two machines with the same clock."""
    clock, url = Clock(), f"memory://{secrets.token_hex(4)}/models"
    one, other = (Registry(ObjectStore(url, tmp_path / name, clock)) for name in ("one", "other"))
    train(one)
    return clock, one, other


def test_a_lock_that_a_dead_holder_left_expires(tmp_path: Path) -> None:
    clock, one, other = two(tmp_path)
    left = one.storage.locked("default")
    left.__enter__()
    clock.now += EXPIRES_S - 1
    with pytest.raises(RegistryBusy, match=r"another change is under way \(by .*:\d+ since"):
        other.change("default", lambda state: state)
    clock.now += 2
    assert other.change("default", lambda state: state).generation == 1
    assert other.change("default", lambda state: state).generation == 2


def test_a_holder_that_is_slower_than_its_lock_writes_nothing(tmp_path: Path) -> None:
    clock, one, other = two(tmp_path)
    with (
        pytest.raises(RegistryBusy, match="the lock has expired; nothing was done"),
        one.storage.locked("default") as put,
    ):
        clock.now += EXPIRES_S + 1
        other.change("default", lambda state: state)
        put(b"{}")
    with pytest.raises(RegistryBusy, match="the lock has expired"), one.storage.locked("default") as put:
        clock.now += EXPIRES_S - MARGIN_S + 1
        put(b"{}")
    assert one.read("default").generation == 1


def test_of_two_that_take_over_the_same_lock_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one has read who held it before the first one took it over."""
    from ranking.object_lock import Lock

    clock, one, other = two(tmp_path)
    left = one.storage.locked("default")
    left.__enter__()
    clock.now += EXPIRES_S + 1
    take_over = Lock.take_over

    def late(lock: Lock, *held: object) -> None:
        monkeypatch.setattr(Lock, "take_over", take_over)
        with other.locked("default"):
            take_over(lock, *held)  # type: ignore[arg-type]

    monkeypatch.setattr(Lock, "take_over", late)
    with pytest.raises(RegistryBusy, match="another change is under way"):
        one.change("default", lambda state: state)
    assert one.change("default", lambda state: state).generation == 1


def test_a_store_that_cannot_refuse_a_second_writer_is_refused(
    store: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(store)
    fs = fsspec.filesystem("memory")
    monkeypatch.setattr(type(fs), "open", lambda self, path, mode, **_: self._open(path, mode.replace("x", "w")))
    with pytest.raises(RegistryError, match="overwrites what it was to make only where there is nothing"):
        store.change("default", lambda state: state)
    assert store.stamp("default") is None


def test_what_the_store_says_is_one_line(store: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto host")

    for name in ("cat_file", "info", "glob"):
        monkeypatch.setattr(type(fsspec.filesystem("memory")), name, fails)
    asked: list[Callable[[], object]] = [
        lambda: store.read("default"), lambda: store.stamp("default"), lambda: store.versions("default"),
        lambda: store.fetch("default", "1"), lambda: train(store),
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(RegistryUnavailable, match=r"^memory://\w+/models: no route to host$"):
            ask()


def test_a_url_that_nothing_speaks_to_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"^models\.directory: nothing://x: "):
        open_registry("nothing://x", tmp_path, tmp_path)


def add(url: str, cache: Path) -> None:
    fsspec.config.conf["file"] = {"auto_mkdir": True}
    done, registry = 0, Registry(ObjectStore(url, cache))
    while done < 20:
        try:
            registry.change("default", lambda state: state.noted("try", "1"))
            done += 1
        except RegistryBusy:
            pass


def test_no_change_of_several_processes_is_lost(tmp_path: Path) -> None:
    (tmp_path / "models" / "default").mkdir(parents=True)
    url = f"file://{tmp_path}/models"
    workers = [multiprocessing.get_context("fork").Process(target=add, args=(url, tmp_path)) for _ in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
        assert one.exitcode == 0
    assert Registry(ObjectStore(url, tmp_path)).read("default").generation == 60


def fetch(url: str, cache: Path) -> None:
    assert load_bundle(Registry(ObjectStore(url, cache)).fetch("default", "1")).key == "default@1"


def test_several_processes_fetch_a_version_once(tmp_path: Path) -> None:
    train(Registry(tmp_path / "models"))
    url, cache = f"file://{tmp_path}/models", tmp_path / "cache"
    workers = [multiprocessing.get_context("fork").Process(target=fetch, args=(url, cache)) for _ in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
        assert one.exitcode == 0
    assert sorted(one.name for one in (cache / "default").iterdir()) == [".1.lock", "1"]
