"""A new version takes over while the service answers: whole, without a lost request, or not at all."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from msgspec import structs

from ranking.registry import Registry, point
from ranking.schema import Dense
from ranking.train.save import save
from service.app import SOURCES, App
from service.config import read_config
from service.newcomer import Entrance, Newcomer
from service.prepared import prepare
from tests.ranking.factory import make_trained
from tests.service.conftest import MAX_AGE_S, Client
from tests.service.test_http import ids
from tests.service.test_supervisor import BODY, children, post
from tests.service.test_supervisor import until as wait_for

LETTERS = "?abcdefg"
"""By version, what its items' ids begin with."""
TENURE = "user_profile:tenure_days"
"""What the first version does not read of a shopper."""


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
    save_version(home / "models", 1, dense=without_tenure())
    return home


def without_tenure() -> tuple[Dense, ...]:
    """As many inputs, but one feature of the store fewer."""
    first, second, *rest = make_trained().user.dense
    assert first.source == TENURE
    return second, second, *rest


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
    assert answer["items"]
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


async def test_all_of_a_version_changes_at_once_also_what_is_read_for_it(shop: Path) -> None:
    """Of the shopper it is read what the new version wants, and the description names its items."""
    async with serving(shop) as client:
        before = await client.recommend(user_id="u3", placement="home", count=5, explain=True)
        assert version_of(before) == "1" and TENURE not in before["inputs"]
        save_version(shop / "models", 2)
        promote(shop, "2")

        async def there() -> bool:
            return version_of(await client.recommend(user_id="u3", placement="home", count=5)) == "2"

        await until(there)
        after = await client.recommend(user_id="u3", placement="home", count=5, explain=True)
        assert after["inputs"][TENURE] is not None
        _, stored = await client.get("/v1/features/user/u3")
        assert "tenure_days" in stored

        async def described() -> bool:
            _, text = await client.get("/openapi.json")
            return '"b00' in text and '"a00' not in text

        await until(described)
        promote(shop, "1")

        async def back() -> bool:
            return version_of(await client.recommend(user_id="u3", placement="home", count=5)) == "1"

        await until(back)
        pinned = await client.recommend(user_id="u3", placement="home", count=5, model_version="2")
        assert pinned["model"] == {"name": "default", "version": "2", "group": "pinned"} and version_of(pinned) == "2"


async def refused(client: Client, version: str) -> str:
    """Why a version is refused, once it is."""

    async def known() -> bool:
        assert client.app.follower is not None
        return ("default", version) in client.app.follower.refused

    await until(known)
    _, metrics = await client.get("/metrics")
    assert f'endcap_model_refused{{model="default",version="{version}"}} 1.0' in metrics
    return client.app.follower.refused["default", version].reason


async def test_a_damaged_version_is_refused_with_its_reason_until_it_is_another(shop: Path) -> None:
    async with serving(shop) as client:
        path = save_version(shop / "models", 2)
        whole = (path / "neighbors.npy").read_bytes()
        (path / "neighbors.npy").write_bytes(whole[:-1] + b"?")
        promote(shop, "2")
        assert "neighbors.npy" in await refused(client, "2")
        for _ in range(3):
            assert version_of(await client.recommend(user_id="u3", placement="home", count=5)) == "1"
        (path / "neighbors.npy").write_bytes(whole)
        manifest = (path / "manifest.json").read_bytes()
        (path / "manifest.json").unlink()
        (path / "manifest.json").write_bytes(manifest)

        async def there() -> bool:
            return version_of(await client.recommend(user_id="u3", placement="home", count=5)) == "2"

        await until(there)
        assert client.app.follower is not None and not client.app.follower.refused


async def test_a_version_that_reads_what_feast_does_not_have_is_refused(shop: Path) -> None:
    async with serving(shop) as client:
        dense = make_trained().user.dense
        elsewhere = structs.replace(dense[0], source="user_horoscope:sign")
        save_version(shop / "models", 2, dense=(elsewhere, *dense[1:]))
        promote(shop, "2")
        reason = await refused(client, "2")
        assert "does not fit the Feast registry" in reason and "user_horoscope" in reason
        assert version_of(await client.recommend(user_id="u3", placement="home", count=5)) == "1"


async def test_a_damaged_state_is_told_and_what_it_said_before_goes_on(shop: Path, caplog: Any) -> None:
    async with serving(shop) as client:
        save_version(shop / "models", 2)
        file = shop / "models" / "default" / "aliases.json"
        file.write_text("{")

        async def told() -> bool:
            return "aliases.json" in caplog.text

        await until(told)
        assert version_of(await client.recommend(user_id="u3", placement="home", count=5)) == "1"
        file.unlink()
        promote(shop, "2")

        async def there() -> bool:
            return version_of(await client.recommend(user_id="u3", placement="home", count=5)) == "2"

        await until(there)


async def swap_items(client: Client) -> set[str]:
    answer = await client.recommend(placement="popular", count=50, filter={"category": ["swapped"]})
    return set(ids(answer))


@pytest.mark.parametrize("thread", [True, False])
async def test_item_changes_before_and_during_a_swap_are_in_the_new_version(
    shop: Path, thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that comes once the newcomer has read what the store holds, and before it answers."""
    names = [f"swap-{thread}-{number}-{time.time_ns()}" for number in range(6)]
    read = Entrance.counts_held

    async def say(name: str, **facts: Any) -> None:
        await client.post("/v1/items", {"items": [{"item_id": name, **facts}]}, 202)

    async def shown(*wanted: str) -> None:
        async def there() -> bool:
            return await swap_items(client) == set(wanted)

        await until(there)

    async def between(entrance: Entrance, newcomer: Newcomer) -> Any:
        found = await read(entrance, newcomer)
        await say(names[1], removed=True)
        await shown(*names[2:])  # by the old version, which has been told
        return found

    monkeypatch.setattr(Entrance, "counts_held", between)
    async with serving(shop, thread=thread) as client:
        for name in names:
            await say(name, title=name, category="swapped")
        await shown(*names)
        await say(names[0], removed=True)
        save_version(shop / "models", 2)
        promote(shop, "2")

        async def taken_over() -> bool:
            return (await client.recommend(placement="popular", count=5))["model"]["version"] == "2"

        await until(taken_over)
        assert await swap_items(client) == set(names[2:])
        await say(names[2], removed=True)
        await shown(*names[3:])
        for name in names[3:]:
            await say(name, removed=True)


@pytest.mark.parametrize("thread", [True, False])
async def test_of_a_version_that_nobody_needs_nothing_stays(shop: Path, thread: bool) -> None:
    """The one before is kept for a rollback; the one before that goes, also though its start has frozen the heap."""
    async with serving(shop, thread=thread, timeout_ms=200) as client:
        app = client.app
        assert app.versions is not None and app.engine is not None
        bundle, path = app.versions.bundles["default"]["1"], app.engine.desk.paths["default@1"]
        gone = [
            weakref.ref(one) for one in (bundle, path, bundle.items.embeddings, bundle.items.dense, bundle.user_tower)
        ]
        del bundle, path
        for version in (2, 3):
            save_version(shop / "models", version)
            promote(shop, str(version))

            async def there(wanted: str = str(version)) -> bool:
                return (await client.recommend(user_id="u3", placement="popular", count=5))["model"][
                    "version"
                ] == wanted

            await until(there)
        assert list(app.versions.bundles["default"]) == ["2", "3"]

        async def left() -> bool:
            return list(app.engine.desk.paths) == ["default@2", "default@3"]  # type: ignore[union-attr]

        await until(left)

        async def freed() -> bool:
            return not [one for one in gone if one() is not None]

        await until(freed)
        answer = await client.post("/v1/recommendations", {"user_id": "u3", "model_version": "1"}, 404)
        assert "loaded: 2, 3" in answer["detail"]


async def test_a_version_that_is_wanted_again_before_it_has_gone_is_there_at_once(shop: Path) -> None:
    async with serving(shop, timeout_ms=60_000) as client:
        for version in (2, 3):
            save_version(shop / "models", version)
            promote(shop, str(version))

            async def there(wanted: str = str(version)) -> bool:
                return version_of(await client.recommend(user_id="u3", placement="home", count=5)) == wanted

            await until(there)
        app = client.app
        assert app.follower is not None and app.versions is not None and list(app.follower.leaving) == ["default@1"]
        (path, _) = app.follower.leaving["default@1"]
        promote(shop, "1")

        async def back() -> bool:
            return version_of(await client.recommend(user_id="u3", placement="home", count=5)) == "1"

        await until(back)
        assert app.versions.bundles["default"]["1"] is path


async def test_a_service_that_starts_from_what_was_loaded_before_catches_up_before_it_answers(shop: Path) -> None:
    """As a worker does that takes a dead one's place: its supervisor loaded when it started."""
    config = read_config(shop)
    prepared = await asyncio.to_thread(prepare, shop, config, SOURCES)
    save_version(shop / "models", 2)
    promote(shop, "2")
    app = App(shop, config, prepared)
    port = await app.listen("127.0.0.1", 0)
    await app.load()
    async with aiohttp.ClientSession() as session:
        client = Client(app, session, f"http://127.0.0.1:{port}")
        assert version_of(await client.recommend(user_id="u3", placement="home", count=5)) == "2"
    assert not prepared.paths  # whoever keeps it keeps no version that may go
    await app.stop()


async def test_a_newer_version_waits_for_somebody_to_say_so(shop: Path) -> None:
    """Without an alias the newest one at the start answers, and a change of another alias changes nothing about it."""
    async with serving(shop) as client:
        save_version(shop / "models", 2)
        promote(shop, "2", "candidate")

        async def loaded() -> bool:
            assert client.app.versions is not None
            return "2" in client.app.versions.bundles["default"]

        await until(loaded)
        for _ in range(3):
            assert version_of(await client.recommend(user_id="u3", placement="home", count=5)) == "1"


def answering(url: str) -> set[str]:
    """The versions of thirty answers, each on a connection of its own."""
    found = set()
    for _ in range(30):
        request = urllib.request.Request(f"{url}/v1/recommendations", BODY, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as response:
            found.add(msgspec.json.decode(response.read())["model"]["version"])
    return found


def test_every_worker_follows_and_so_does_one_that_takes_a_dead_ones_place(shop: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--dir", str(shop), "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "answers at" in line)
        (url,) = re.findall(r"http://[\d.:]+", line)[:1]
        try:
            wait_for(lambda: all(post(url) == 200 for _ in range(30)))
            save_version(shop / "models", 2)
            promote(shop, "2")
            wait_for(lambda: answering(url) == {"2"})
            (zygote,) = children(process.pid)
            for killed in children(zygote):
                os.kill(killed, signal.SIGKILL)
                wait_for(lambda killed=killed: killed not in children(zygote) and len(children(zygote)) == 2)  # type: ignore[misc]
                wait_for(lambda: all(post(url) == 200 for _ in range(30)))
                assert answering(url) == {"2"}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
