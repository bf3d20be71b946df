"""Shadows: another version answers the same requests, and no shopper notices."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ranking.errors import EngineExpired, EngineOverloaded, EngineStopped
from ranking.registry import Registry, point
from service.admission import Limiter
from service.answer_figures import ShadowFigures
from service.config import read_config
from service.placements import Placement, PlacementShadow
from service.prepared import wanted
from service.shadow import AT_ONCE, Served, Shadows
from service.trace import Trace
from service.wire import RecommendRequest
from tests.service.conftest import Client, counted, running, save_untrained
from tests.service.test_deadlines import Full
from tests.service.test_http import ids
from tests.service.test_split_served import name_candidate, with_settings

SHADOW = 'shadow = { version = "candidate" }\n'
USERS = [f"u{n}" for n in range(12)]


@pytest.fixture
async def shadowed(deployment: Path, tmp_path: Path) -> AsyncIterator[Client]:
    """`home` answers with version 2; its shadow is the candidate, version 3, of the very same weights."""
    directory = with_settings(deployment, tmp_path / "shadowed", SHADOW)
    path = directory / "endcap.toml"
    path.write_text(path.read_text().replace("keep = 2 ", "keep = 3 "))
    save_untrained(directory / "models", seed=1)
    registry = Registry(directory / "models")
    registry.change("default", lambda state: point(state, "production", "2", ["2"]))
    name_candidate(directory, "3")
    async with running(directory) as client:
        yield client


def shadows(client: Client) -> Shadows:
    assert client.app.api.answers.recommender is not None
    return client.app.api.answers.recommender.shadows


async def settled(client: Client) -> str:
    """The metrics, once no shadow is under way."""
    while tasks := shadows(client).tasks:
        await asyncio.gather(*tasks)
    return (await client.get("/metrics"))[1]


def outcomes(scrape: str) -> dict[str, float]:
    every = ("compared", "dropped", "failed", "expired")
    found = {one: counted(scrape, "endcap_shadow_total", placement="home", model="default", version="3", outcome=one)
             for one in every}  # fmt: skip
    assert counted(scrape, "endcap_shadow_total") == sum(found.values())
    return {one: count for one, count in found.items() if count}


def candidate(client: Client, change: Callable[[Any], Any]) -> None:
    """Puts something else in the place of what version 3 does with a batch."""
    assert client.app.engine is not None
    path = client.app.engine.desk.paths["default@3"]
    path.recommend = change(path.recommend)  # type: ignore[method-assign]


async def test_the_same_model_under_another_number_agrees_wholly(shadowed: Client) -> None:
    """With rules, filters, `context` and for `rank`; the shadow's score is the answer's."""
    await shadowed.recommend(user_id="u1", count=30, context={"country": "Germany"})
    await settled(shadowed)
    await shadowed.recommend(user_id="nobody", count=5, filter={"price": {"max": 20}})
    await settled(shadowed)
    await shadowed.post("/v1/rank", {"user_id": "u2", "item_ids": [f"i{n:05d}" for n in range(40)]})
    text = await settled(shadowed)
    assert outcomes(text) == {"compared": 3}
    who = {"placement": "home", "model": "default", "version": "3"}
    for name, below in (("overlap", "0.99"), ("rbo", "0.99")):
        assert counted(text, f"endcap_shadow_{name}_bucket", le=below, **who) == 0
        assert counted(text, f"endcap_shadow_{name}_bucket", le="1.0", **who) == 3
    assert counted(text, "endcap_shadow_score_drift_bucket", le="-0.001", **who) == 0
    assert counted(text, "endcap_shadow_score_drift_bucket", le="0.001", **who) == 3
    for side in ("shadow", "answer"):
        assert counted(text, "endcap_shadow_seconds_count", side=side, **who) == 3
        assert counted(text, "endcap_shadow_seconds_sum", side=side, **who) > 0
    assert counted(text, "endcap_answers_total", version="3") == 0, "no shopper was answered by it"
    assert counted(text, "endcap_stage_seconds_count", stage="decode") == 3


async def test_when_the_alias_moves_the_shadow_is_another_and_none_where_it_is_what_answers(shadowed: Client) -> None:
    assert shadowed.app.versions is not None
    current = shadowed.app.versions.current
    current["default@candidate"] = "2"
    await shadowed.recommend(user_id="u1")
    assert not counted(await settled(shadowed), "endcap_shadow_total")
    current["default@candidate"] = "1"
    await shadowed.recommend(user_id="u1")
    text = await settled(shadowed)
    assert counted(text, "endcap_shadow_total", version="1", outcome="compared") == 1
    assert counted(text, "endcap_shadow_rbo_bucket", version="1", le="0.9") == 1, "it has other weights"


async def test_a_list_in_another_order_and_of_other_scores_is_told_by_how_much(shadowed: Client) -> None:
    """Of ten items the shadow shows the first nine last first, each with two more of score."""

    def turned(recommend: Any) -> Any:
        def answer(queries: Any, clock: Any) -> Any:
            (one,) = recommend(queries, clock)
            order = [*range(8, -1, -1), 10]
            return [type(one)(one.rows[order], one.scores[order] + 2, one.retrieval[order], one.source[order])]

        return answer

    candidate(shadowed, turned)
    shown = await shadowed.recommend(user_id="u1", count=10)
    assert len(shown["items"]) == 10
    text = await settled(shadowed)
    assert outcomes(text) == {"compared": 1}
    assert counted(text, "endcap_shadow_overlap_bucket", le="0.9") == 1
    assert counted(text, "endcap_shadow_overlap_bucket", le="0.8") == 0
    assert counted(text, "endcap_shadow_rbo_bucket", le="0.8") == 1
    assert counted(text, "endcap_shadow_score_drift_bucket", le="1.0") == 0
    assert counted(text, "endcap_shadow_score_drift_bucket", le="3.0") == 1


async def test_an_answer_does_not_wait_for_its_shadow(shadowed: Client) -> None:
    gate = threading.Event()

    def held(recommend: Any) -> Any:
        def answer(queries: Any, clock: Any) -> Any:
            gate.wait(30)
            return recommend(queries, clock)

        return answer

    candidate(shadowed, held)
    answer = await shadowed.recommend(user_id="u1", count=5)
    assert answer["model"]["version"] == "2" and answer["degraded"] == []
    assert not outcomes((await shadowed.get("/metrics"))[1])
    gate.set()
    assert outcomes(await settled(shadowed)) == {"compared": 1}


async def test_a_candidate_that_fails_is_counted_told_once_and_seen_by_nobody(
    shadowed: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(recommend: Any) -> Any:
        def answer(queries: Any, clock: Any) -> Any:
            raise ValueError("no such tensor")

        return answer

    candidate(shadowed, failing)
    with caplog.at_level(logging.WARNING):
        for user in USERS[:3]:
            answer = await shadowed.recommend(user_id=user, count=5)
            assert answer["degraded"] == [] and len(answer["items"]) == 5
            await settled(shadowed)
    assert outcomes(await settled(shadowed)) == {"failed": 3}
    assert [one.getMessage() for one in caplog.records if "shadow" in one.getMessage()] == [
        "shadow default@3 failed, and is only counted from here on: EngineError('ValueError: no such tensor')"
    ]


async def test_under_load_shadows_are_dropped_and_answers_are_the_same(shadowed: Client) -> None:
    """Somebody waits for the engine, or is being answered: nothing is asked of the candidate."""
    before = [ids(await shadowed.recommend(user_id=user, count=5)) for user in USERS]
    compared = outcomes(await settled(shadowed)).get("compared", 0)

    def never(recommend: Any) -> Any:
        def answer(queries: Any, clock: Any) -> Any:
            raise AssertionError("asked under load")

        return answer

    candidate(shadowed, never)
    one = shadows(shadowed)
    engine = one.engine
    engine.wait_s = lambda: 0.001  # type: ignore[method-assign]
    assert [ids(await shadowed.recommend(user_id=user, count=5)) for user in USERS] == before
    del engine.wait_s
    one.limiter.in_flight += 1
    assert [ids(await shadowed.recommend(user_id=user, count=5)) for user in USERS] == before
    one.limiter.in_flight -= 1
    dropped = 12 - compared + 24
    found = outcomes(await settled(shadowed))
    assert (
        found.get("compared", 0) == compared and found["dropped"] == dropped and set(found) <= {"compared", "dropped"}
    )


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(EngineExpired, "expired"), (EngineOverloaded, "dropped"), (EngineStopped, "dropped"), (KeyError, "failed")],
)
async def test_what_the_engine_says_is_counted_as_what_it_is(
    shadowed: Client, error: type[Exception], outcome: str
) -> None:
    class Refusing:
        async def submit(self, version: str, query: Any, *, expires_at: float, bulk: bool) -> Any:
            assert (version, bulk) == ("default@3", True) and 0 < expires_at - time.perf_counter() <= 20
            raise error("no")

        def wait_s(self) -> float:
            return 0.0

    shadows(shadowed).engine = Refusing()
    assert len((await shadowed.recommend(user_id="u1", count=5))["items"]) == 5
    assert outcomes(await settled(shadowed)) == {outcome: 1}


async def test_what_an_answer_gave_up_its_shadow_gives_up_too(shadowed: Client) -> None:
    assert shadowed.app.api.answers.recommender is not None
    asked, engine = list[Any](), shadows(shadowed).engine

    class Noting:
        async def submit(self, version: str, query: Any, *, expires_at: float, bulk: bool) -> Any:
            asked.append(query)
            return await engine.submit(version, query, expires_at=expires_at, bulk=bulk)

        def wait_s(self) -> float:
            return 0.0

    shadows(shadowed).engine = Noting()
    for rung, degraded in ((0, ["candidates"]), (1, ["candidates", "ranker"]), (2, ["popular"])):
        shadowed.app.api.answers.recommender.shares.learn("home", rung, 3600.0)
        assert (await shadowed.recommend(user_id="u1", count=5))["degraded"] == degraded
        text = await settled(shadowed)
    assert [query.ranked for query in asked] == [True, False]
    assert all(sum(query.sources.values()) < 150 for query in asked), "of 320"
    assert counted(text, "endcap_shadow_overlap_bucket", le="0.99") == 0, "of the same weights: the same lists"
    assert outcomes(text) == {"compared": 2, "dropped": 1}, "without the engine there was no time for it"


class Two:
    """Version 12, which answers, and its candidate."""

    def __init__(self) -> None:
        self.rollouts: dict[str, Any] = {}
        self.answers, self.other = (SimpleNamespace(name="default", version=one, key=one) for one in ("12", "13"))

    def resolve(self, model: str, version: str | None = None) -> Any:
        return self.answers if version is None else self.other


def offered(chances: list[float], share: float = 1.0) -> tuple[Shadows, ShadowFigures]:
    """So many answers offered in one turn of the loop."""
    two, figures, limiter = Two(), ShadowFigures(), Limiter(Full(100.0), time.perf_counter)
    one = Shadows(SimpleNamespace(wait_s=lambda: 1.0), two, limiter, figures, iter(chances).__next__)  # type: ignore[arg-type]
    placement = Placement({"popular": 5}, shadow=PlacementShadow("13", share))
    trace = Trace()
    trace.batch_size = 1
    for _ in chances:
        one.offer(Served(RecommendRequest(), placement, two.answers, "default", None, trace, None))  # type: ignore[arg-type]
    return one, figures


async def test_a_few_are_under_way_at_once_and_the_rest_is_dropped() -> None:
    one, figures = offered([0.0] * (AT_ONCE + 3))
    assert len(one.tasks) == AT_ONCE and figures.outcomes.values == {("home", "default", "13", "dropped"): 3}
    await asyncio.gather(*one.tasks)
    assert figures.outcomes.values == {("home", "default", "13", "dropped"): AT_ONCE + 3}, "somebody waits"


async def test_the_share_of_requests_is_shadowed_and_no_more() -> None:
    one, figures = offered([0.0, 0.19, 0.2, 0.9], share=0.2)
    assert len(one.tasks) == 2 and not figures.outcomes.values
    await one.stop()
    assert not one.tasks and not figures.outcomes.values, "given up at a stop, and left behind nowhere"


async def test_what_is_pinned_or_of_another_placement_has_no_shadow(shadowed: Client) -> None:
    await shadowed.recommend(user_id="u1", model_version="2")
    await shadowed.recommend(user_id="u1", placement="popular")
    assert not outcomes(await settled(shadowed))


async def test_a_shadow_by_an_alias_that_is_not_set_is_none(deployment: Path, tmp_path: Path) -> None:
    directory = with_settings(deployment, tmp_path / "x", SHADOW)
    config, registry = read_config(directory), Registry(directory / "models")
    assert wanted(config.placements, registry) == ["default"]
    async with running(directory) as client:
        await client.recommend(user_id="u1")
        assert not outcomes(await settled(client))
    name_candidate(directory, "1")
    assert wanted(config.placements, registry) == ["default", "default@candidate"]
