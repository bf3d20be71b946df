"""A new version takes over while the service answers: whole, without a lost request, or not at all."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import structs

from ranking.registry import Registry, point
from ranking.train.save import save
from service.app import App
from service.config import read_config
from tests.ranking.factory import make_trained
from tests.service.conftest import MAX_AGE_S, Client
from tests.service.test_http import ids

LETTERS = "?abcdefg"
"""By version, what its items' ids begin with."""


def save_version(models: Path, version: int, **changes: Any) -> Path:
    """A version that shares nothing with the others: items, dimension, history."""
    trained = make_trained(100 + 10 * version, dimension=8 + 4 * version, history=8 + version, seed=version)
    user = structs.replace(trained.user, **{"feature_service": "default", "max_age_s": MAX_AGE_S, **changes})
    names = [f"{LETTERS[version]}{row:05d}" for row in range(len(trained.items))]
    at = trained.items.column_names.index("item_id")
    object.__setattr__(trained, "items", trained.items.set_column(at, "item_id", [names]))
    object.__setattr__(trained, "user", user)
    path = save(trained, models, "default", {"untrained": {"recall@10": 0.0}})
    assert path.name == str(version)
    return path


@pytest.fixture
def shop(deployment: Path, tmp_path: Path) -> Path:
    """A deployment with one version; what it shares with the other tests is the store."""
    home = tmp_path / "shop"
    home.mkdir()
    shutil.copy(deployment / "endcap.toml", home)
    for name in ("feature_repo", "data"):
        (home / name).symlink_to(deployment / name)
    save_version(home / "models", 1)
    return home


@asynccontextmanager
async def serving(shop: Path, *, thread: bool = True, keep: int = 1, timeout_ms: float = 5000) -> AsyncIterator[Client]:
    """The service, with the newest `keep` versions loaded and those that an alias names."""
    config = read_config(shop)
    config = structs.replace(
        config,
        engine=structs.replace(config.engine, thread=thread),
        models=structs.replace(config.models, keep=keep),
        service=structs.replace(config.service, timeout_ms=timeout_ms),
    )
    app = App(shop, config)
    port = await app.listen("127.0.0.1", 0)
    await app.load()
    async with aiohttp.ClientSession() as session:
        yield Client(app, session, f"http://127.0.0.1:{port}")
    await app.stop()


def promote(shop: Path, version: str, alias: str = "production") -> None:
    registry = Registry(shop / "models")
    registry.change("default", lambda state: point(state, alias, version, registry.versions("default")))


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.02)


def version_of(answer: dict[str, Any]) -> str:
    """The version that an answer is of, as it says itself; asserts that all of its items are that version's."""
    version = str(answer["model"]["version"])
    assert {one[0] for one in ids(answer)} <= {LETTERS[int(version)]}, answer
    assert set(answer["degraded"]) <= {"last_known", "features"} and answer["items"]  # a busy machine's store is late
    return version


class Shoppers:
    """Ask without a pause, and note which version answers."""

    def __init__(self, client: Client) -> None:
        self.client, self.seen, self.stopped = client, list[str](), False

    async def ask(self, number: int) -> None:
        turn = number
        while not self.stopped:
            turn += 1
            self.seen.append(
                version_of(await self.client.recommend(user_id=f"u{turn % 12}", placement="home", count=5))
            )

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(self.ask(number))
            yield
            self.stopped = True

    async def see(self, version: str, answers: int = 10) -> None:
        """Until the last answers are of this version."""

        async def there() -> bool:
            return self.seen[-answers:] == [version] * answers

        await until(there)


@pytest.mark.parametrize("thread", [True, False])
async def test_a_promotion_and_a_rollback_lose_no_request_and_mix_nothing(shop: Path, thread: bool) -> None:
    async with serving(shop, thread=thread) as client:
        save_version(shop / "models", 2)
        shoppers = Shoppers(client)
        async with shoppers.asking():
            await shoppers.see("1")
            promote(shop, "2")
            await shoppers.see("2")
            promote(shop, "1")
            await shoppers.see("1")
    changes = [one for one, before in zip(shoppers.seen, ["", *shoppers.seen], strict=False) if one != before]
    assert changes[0] == "1" and changes[-1] == "1" and "2" in changes
