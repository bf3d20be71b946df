"""A request's budget, end to end: what storefronts get when there is not time, or room, for everything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from service.recommend import Recommender
from tests.service.conftest import Client, counted
from tests.service.test_http import ids

SHORT = {"Endcap-Timeout-Ms": "150"}


def recommender(client: Client) -> Recommender:
    assert client.app.api.answers.recommender is not None
    return client.app.api.answers.recommender


@contextmanager
def stuck_engine(client: Client) -> Iterator[None]:
    """Until the end of the block no batch comes to its end."""
    assert client.app.engine is not None
    paths, gate = client.app.engine.desk.paths, threading.Event()
    kept = {key: path.recommend for key, path in paths.items()}

    def wait(key: str) -> Any:
        def recommend(queries: Any, clock: Any) -> Any:
            gate.wait(30)
            return kept[key](queries, clock)

        return recommend

    for key, path in paths.items():
        path.recommend = wait(key)  # type: ignore[method-assign]
    try:
        yield
    finally:
        gate.set()
        for key, path in paths.items():
            path.recommend = kept[key]  # type: ignore[method-assign]


async def ask(client: Client, status: int = 200, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    return await client.post("/v1/recommendations", body, status, headers=headers or {})


async def test_when_the_engine_does_not_answer_in_time_popular_items_do(client: Client) -> None:
    """They obey the request's filter and exclusions, are named as what they are, and are ready before the engine is."""
    category = next(iter(client.app.versions.all())).items.categories[0]  # type: ignore[union-attr]
    first = await ask(client, count=1, filter={"category": [category]})
    left_out = first["items"][0]["item_id"]
    with stuck_engine(client):
        answer = await ask(
            client, headers=SHORT, user_id="u1", count=5, filter={"category": [category]}, explain=True,
            exclude_item_ids=[left_out],
        )  # fmt: skip
    assert answer["degraded"] == ["popular"] and len(answer["items"]) == 5
    assert {item["source"] for item in answer["items"]} == {"popular"}
    assert {item["explain"]["category"] for item in answer["items"]} == {category}
    assert left_out not in ids(answer)
    _, text = await client.get("/metrics")
    assert counted(text, "endcap_degraded_total", reason="popular", version="2", group="default") == 1


async def test_a_deadline_beyond_the_placements_cap_is_cut_to_it(client: Client) -> None:
    """The engine is stuck for half a minute; the caller would wait an hour, the placement does not let it."""
    recommender(client).most_s = 0.15
    with stuck_engine(client):
        assert (await ask(client, headers={"grpc-timeout": "1H"}, user_id="u1", count=5))["degraded"] == ["popular"]


async def test_a_callers_own_items_come_back_in_its_order_when_there_is_no_time_to_rank(client: Client) -> None:
    own = ["i00009", "i00002", "nothing", "i00005"]
    with stuck_engine(client):
        answer = await client.post("/v1/rank", {"item_ids": own, "user_id": "u1"}, headers=SHORT)
    assert answer["degraded"] == ["ranker"] and ids(answer) == ["i00009", "i00002", "i00005"]
    assert answer["missing_item_ids"] == ["nothing"]


async def test_with_no_time_at_all_the_problem_says_where_it_went(client: Client) -> None:
    problem = await ask(client, 504, {"Endcap-Timeout-Ms": "0"}, user_id="u1")
    assert problem["type"] == "urn:endcap:problem:deadline-exceeded" and "decode" in problem["detail"]


async def test_a_header_that_cannot_be_read_is_named(client: Client) -> None:
    problem = await ask(client, 422, {"Endcap-Timeout-Ms": "soon"}, user_id="u1")
    assert problem["errors"][0]["path"] == "Endcap-Timeout-Ms"


@pytest.mark.parametrize(
    ("rungs", "given_up", "ranked"),
    [(1, ["candidates"], True), (2, ["candidates", "ranker"], False), (3, ["popular"], False)],
)
async def test_as_much_is_given_up_as_the_budget_does_not_pay_for(
    client: Client, rungs: int, given_up: list[str], ranked: bool
) -> None:
    """`home` on a flat index has two things to do without; each is what the next would cost too much."""
    shares = recommender(client).shares
    for rung in range(rungs):
        shares.learn("home", rung, 3600.0)
    answer = await ask(client, user_id="u1", count=5)
    assert answer["degraded"] == given_up and len(answer["items"]) == 5
    scores = [item["score"] for item in answer["items"]]
    assert (sorted(scores, reverse=True) == scores) or not ranked


class Full:
    """A limit with room for so many."""

    def __init__(self, size: float) -> None:
        self.size = size

    def success(self, share: float, in_flight: int, now: float) -> None:
        pass

    def dropped(self, in_flight: int, now: float) -> None:
        pass


@pytest.mark.parametrize("path", ["/v1/recommendations", "/v1/rank"])
async def test_without_room_a_request_is_refused_before_the_store_is_asked(client: Client, path: str) -> None:
    """At once, with when to come again; and what is asked of the service itself still gets in."""
    one, asked = recommender(client), list[str]()

    async def read(user_id: str) -> Any:
        asked.append(user_id)

    one.shoppers.features.read = read  # type: ignore[method-assign]
    one.limiter.limit = Full(0.5)
    problem = await client.post(path, {"user_id": "u1", "item_ids": ["i00001"]}, 503)
    assert problem["type"] == "urn:endcap:problem:overloaded" and client.headers["Retry-After"] == "1"
    assert not asked and one.limiter.in_flight == 0
    status, text = await client.get("/metrics")
    assert 'endcap_refused_total{priority="interactive"} 1.0' in text
    assert counted(text, "endcap_requests_total", endpoint=path, placement="", model="", status="503") == 1
    assert status == 200 and (await client.get("/readyz"))[0] == 200


async def test_bulk_requests_are_refused_while_interactive_ones_are_let_in(client: Client) -> None:
    """By the header, or by the placement; the header has the last word."""
    one = recommender(client)
    one.limiter.limit = Full(1.2)
    await ask(client, user_id="u1")
    await ask(client, 503, {"Endcap-Priority": "bulk"}, user_id="u1")
    placements = one.placements.placements
    placements["home"] = msgspec.structs.replace(placements["home"], priority="bulk")
    await ask(client, 503, user_id="u1")
    await ask(client, 200, {"Endcap-Priority": "interactive"}, user_id="u1")
    assert one.limiter.refused == {"interactive": 0, "bulk": 2}


async def test_beyond_the_limit_a_few_get_a_popular_list_and_neither_store_nor_engine_is_asked(client: Client) -> None:
    one = recommender(client)
    whole = await ask(client, user_id="u1", count=5)
    one.limiter.limit, one.limiter.earned = Full(0.5), 10
    asked = list[object]()
    one.shoppers.features.read = one.engine.submit = asked.append  # type: ignore[method-assign,assignment]
    found = await ask(client, user_id="u1", count=5)
    assert found["degraded"] == ["last_known", "popular"] and len(found["items"]) == 5 and not asked
    assert found["items"] != whole["items"] and one.limiter.earned == 0
    await client.recommend(503, user_id="u1")


async def test_a_full_gate_takes_the_ladder_before_it_refuses(client: Client) -> None:
    recommender(client).limiter.limit = Full(1.02)
    assert (await ask(client, user_id="u1", count=5))["degraded"] == ["candidates", "ranker"]
    recommender(client).limiter.limit = Full(1.3)
    assert (await ask(client, user_id="u1", count=5))["degraded"] == ["candidates"]


async def test_clients_that_go_away_leave_nothing_behind(client: Client) -> None:
    """Whenever they go: nothing stays in flight, and the next answer is whole."""
    for delay in range(20):
        tasks = [asyncio.create_task(ask(client, user_id=f"u{i % 12}")) for i in range(10)]
        await asyncio.sleep(delay / 2000)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(10):
        while recommender(client).limiter.in_flight:
            await asyncio.sleep(0.01)
    assert (await ask(client, user_id="u1"))["degraded"] == []
