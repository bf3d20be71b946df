"""A promotion in steps on a running service: it goes all the way by itself, or back, and shoppers lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from ranking.registry import Plan, Registry, Rules, State, begin
from service import guard
from tests.service.conftest import Client, counted
from tests.service.test_hot_swap import promote, save_version, serving, shop, until

__all__ = ["shop"]  # a fixture


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "EVERY_S", 0.05)


def roll_out(shop: Path, rules: Rules, steps: list[float], least: int = 20) -> Registry:
    registry, plan = Registry(shop / "models"), Plan(steps, hold_s=0.2, least=least, rules=rules)
    registry.change("default", lambda state: begin(state, "2", plan, registry.versions("default"), by="test"))
    return registry


async def ask_until_over(client: Client, registry: Registry) -> list[tuple[str, str]]:
    """Who answered whom until the rollout is over: group and version. Every request is answered."""
    seen: list[tuple[str, str]] = []
    number = 0

    async def over() -> bool:
        nonlocal number
        for _ in range(10):
            number += 1
            answer = await client.recommend(user_id=f"u{number % 500}", placement="home", count=5)
            seen.append((answer["model"]["group"], answer["model"]["version"]))
        return registry.read("default").rollout is None

    await until(over, 60)
    return seen


async def answers_with(client: Client, version: str) -> None:
    async def there() -> bool:
        return bool((await client.recommend(user_id="u1", placement="home"))["model"]["version"] == version)

    await until(there)


def history(registry: Registry) -> State:
    return registry.read("default")


async def test_a_version_that_keeps_the_rules_goes_all_the_way(shop: Path) -> None:
    save_version(shop / "models", 2)
    promote(shop, "1")
    async with serving(shop) as client:
        await answers_with(client, "1")
        registry = roll_out(shop, Rules(errors=0.01, p99_s=5), [0.2, 0.6, 1.0])
        seen = await ask_until_over(client, registry)
        await answers_with(client, "2")
        text = (await client.get("/metrics"))[1]
    state = history(registry)
    assert [one.action for one in state.history] == ["promote", "rollout", "step", "step", "promote"]
    assert state.aliases["production"] == "2" and state.history[-1].by == "guard"
    assert set(seen) <= {("default", "1"), ("rollout", "2"), ("control", "1"), ("default", "2")}
    assert {("rollout", "2"), ("control", "1")} <= set(seen)
    assert counted(text, "endcap_answers_total", version="2", group="rollout") >= 60


async def test_a_version_that_fails_a_rule_is_rolled_back_with_its_figures(shop: Path) -> None:
    """Disjoint catalogues: the two agree in nothing, and the shadow that the rule brings along shows it."""
    save_version(shop / "models", 2)
    promote(shop, "1")
    async with serving(shop) as client:
        await answers_with(client, "1")
        registry = roll_out(shop, Rules(overlap=0.3), [0.5, 1.0], least=10)
        await ask_until_over(client, registry)
        await answers_with(client, "1")
        after = {(await client.recommend(user_id=f"u{n}", placement="home"))["model"]["version"] for n in range(20)}
    state = history(registry)
    assert after == {"1"} and state.aliases == {"production": "1"}
    last = state.history[-1]
    assert (last.action, last.by, last.version) == ("abandon", "guard", "2")
    assert last.why.startswith("overlap 0 %, below 30 %, at 50 %, after ") and "production meanwhile: p99" in last.why


async def test_a_version_that_cannot_be_loaded_is_rolled_back_at_once(shop: Path) -> None:
    damaged = save_version(shop / "models", 2)
    promote(shop, "1")
    (damaged / "ranker.safetensors").write_bytes(b"short")
    async with serving(shop) as client:
        await answers_with(client, "1")
        registry = roll_out(shop, Rules(errors=0.01), [0.5, 1.0])
        assert {version for _, version in await ask_until_over(client, registry)} == {"1"}
    assert "it cannot be loaded: " in history(registry).history[-1].why
    assert "ranker.safetensors: 5 bytes" in history(registry).history[-1].why
    assert replace(history(registry), history=[]).aliases == {"production": "1"}
