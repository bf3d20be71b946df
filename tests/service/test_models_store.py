"""Models in an object store: published by the commands, brought to the machine that serves, changed where they are."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import fsspec
import msgspec
import pytest

from features.child import child
from ranking.errors import BundleError, RegistryError
from ranking.object_store import ObjectStore
from ranking.registry import FILE, Registry, point
from ranking.versions import load_versions
from service import mirror, mirror_keeper
from service.commands import models
from service.config import read_config
from service.console import console
from service.mirror import mirrored
from service.mirror_keeper import MirrorKeeper
from service.registry import registry_to_load
from tests.service.conftest import save_untrained
from tests.service.test_lean import apart

URL = "local://"
"""fsspec's other name for files of this machine: a store that a child sees too, behind the same code as any other."""


@pytest.fixture
def store(deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Versions 1 and 2 of a deployment's model in a store."""
    monkeypatch.setitem(fsspec.config.conf, "local", {"auto_mkdir": True})
    shutil.copytree(deployment / "models", tmp_path / "store")
    return Registry(ObjectStore(f"{URL}{tmp_path}/store", tmp_path / "elsewhere"))


def bring(store: Registry, cache: Path, *models: str, keep: int = 1) -> Registry:
    return mirrored(store.home("")[:-1], cache, models or ("default",), keep)


def test_a_service_gets_what_it_loads_and_no_more(store: Registry, tmp_path: Path) -> None:
    store.publish("default", lambda models: save_untrained(models, 2))
    store.change("default", lambda state: point(state, "production", "1", ["1", "2", "3"]))
    found = bring(store, tmp_path / "cache")
    assert found.versions("default") == ["1", "3"]
    loaded = load_versions(found, ["default"], 1)
    assert (loaded.current, loaded.generations) == ({"default": "1", "default@production": "1"}, {"default": 1})
    assert bring(store, tmp_path / "cache", "default@2").versions("default") == ["1", "2", "3"]


def test_a_version_that_is_not_in_the_store_any_more_is_not_in_the_cache(store: Registry, tmp_path: Path) -> None:
    bring(store, tmp_path / "cache", keep=2)
    shutil.rmtree(tmp_path / "store" / "default" / "2")
    assert bring(store, tmp_path / "cache").versions("default") == ["1"]


def test_what_a_child_could_not_bring_is_told_as_it_would_be_here(store: Registry, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"store/nope: holds no version"):
        bring(store, tmp_path / "cache", "nope")
    with pytest.raises(BundleError, match=r"store/default: candidate names no version; there are 1, 2"):
        bring(store, tmp_path / "cache", "default@candidate")
    (tmp_path / "store" / "default" / FILE).write_text("{")
    with pytest.raises(RegistryError, match=r"aliases\.json: "):
        bring(store, tmp_path / "cache")
    (tmp_path / "store" / "default" / FILE).unlink()
    (tmp_path / "store" / "default" / "2" / "items.parquet").write_bytes(b"short")
    with pytest.raises(BundleError, match=r"^local://.*store/default/2: items\.parquet: 5 bytes"):
        bring(store, tmp_path / "cache")


def test_a_store_that_is_away_is_done_without_where_its_versions_are_here(
    deployment: Path, store: Registry, tmp_path: Path
) -> None:
    shop = tmp_path / "shop"
    shutil.copytree(deployment, shop)
    config = read_config(shop)
    away = msgspec.structs.replace(config.models, directory="http://127.0.0.1:1/models")
    config = msgspec.structs.replace(config, models=away)
    with pytest.raises(RegistryError, match=r"^http://127.0.0.1:1/models: "):
        registry_to_load(shop, config)
    bring(store, shop / config.models.cache)
    found, (notice,) = registry_to_load(shop, config)
    assert found.versions("default") == ["2"] and "going on with what was fetched before" in notice


def test_train_publishes_to_the_store_and_says_what_is_next(
    deployment: Path, store: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = tmp_path / "shop"
    shutil.copytree(deployment, shop)
    text = (shop / "endcap.toml").read_text().replace('directory = "models"', f'directory = "{store.home("")[:-1]}"')
    (shop / "endcap.toml").write_text(text + "\n[train]\nepochs = 1\ndimension = 4\nranker_steps = 2\n")
    monkeypatch.setattr(models, "forward", lambda *_: None)  # compiling says nothing about publishing
    with console.capture() as captured:
        models.train(shop, evaluate=False)
    assert store.versions("default") == ["1", "2", "3"] and "promote" not in captured.get()
    store.change("default", lambda state: point(state, "production", "3", ["3"]))
    with console.capture() as captured:
        models.train(shop, evaluate=False)
    assert "production is still version 3; `endcap models promote default 4`" in captured.get()


BRINGS = """
import sys
from pathlib import Path
from service.mirror import mirrored
found = mirrored(sys.argv[1], Path(sys.argv[2]), ["default"], 1)
print(found.versions("default"), "fsspec" in sys.modules)
"""


def test_who_loads_from_a_store_has_no_client_of_it(store: Registry, tmp_path: Path) -> None:
    """Its threads would not outlive the fork of the workers, and its memory would be in each of them."""
    assert apart(BRINGS, store.home("")[:-1], str(tmp_path / "cache")) == "['2'] False"


def test_a_child_that_says_nothing_is_told_by_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "child", lambda _, argument: child("service.nothing", argument))
    with pytest.raises(RegistryError, match=r"service\.nothing"):
        mirrored("memory://x", tmp_path, ["default"], 1)


async def test_a_store_is_followed_while_a_service_runs(
    store: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one process of a machine, and by another as soon as that one ends."""
    monkeypatch.setattr(mirror_keeper, "AGAIN_S", 0.05)
    cache = bring(store, tmp_path / "cache")
    first, second = (MirrorKeeper(store.home("")[:-1], tmp_path / "cache", ["default"], 1) for _ in range(2))
    first.start()

    async def stands(version: str) -> None:
        async with asyncio.timeout(60):
            while cache.read("default").aliases.get("production") != version:
                await asyncio.sleep(0.05)
        load_versions(cache, ["default"], 1)

    store.change("default", lambda state: point(state, "production", "1", ["1", "2"]))
    await stands("1")
    second.start()
    await asyncio.sleep(0.2)
    assert first.process is not None and second.process is None
    await first.stop()
    store.change("default", lambda state: point(state, "production", "2", ["1", "2"]))
    await stands("2")
    await second.stop()


async def test_a_child_that_complains_a_lot_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its stderr is the service's: a pipe that nobody reads stands still after 64 KiB."""
    monkeypatch.setattr(
        mirror_keeper, "child", lambda _, argument, **how: child("tests.service.complains", argument, **how)
    )
    async with asyncio.timeout(60):
        await MirrorKeeper("memory://x", tmp_path, ["default"], 1).follow()
    assert [one.getMessage() for one in caplog.records] == ["models are not followed: still here"]
    assert capfd.readouterr().err.count("a warning of some library\n") == 10_000
