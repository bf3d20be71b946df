"""Who waits for the engine, and who leaves before the forward pass. Virtual time."""

from __future__ import annotations

import asyncio
from math import inf

from ranking.batch import Answer, Query
from ranking.errors import EngineExpired, EngineOverloaded
from ranking.lanes import INTERVAL_S, Job, Lanes


def job(name: str, queued_at: float = 0.0, expires_at: float = inf, *, bulk: bool = False) -> Job:
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    return Job("m@1", Query({"name": name}, {"popular": 1}, 1), future, queued_at, expires_at, bulk)


def names(jobs: list[Job]) -> list[object]:
    return [one.query.features["name"] for one in jobs]


async def test_interactive_queries_go_before_bulk_ones_each_in_order() -> None:
    lanes = Lanes()
    for name in ("bulk 1", "one", "bulk 2", "two"):
        lanes.put(job(name, bulk=name.startswith("bulk")))
    assert [query.features["name"] for query in lanes] == ["one", "two", "bulk 1", "bulk 2"]
    assert names(lanes.take(3, 0.0)) == ["one", "two", "bulk 1"]
    assert len(lanes) == 1


async def test_whose_time_is_up_leaves_with_why_and_who_has_gone_without() -> None:
    lanes = Lanes()
    late, gone, there = job("late", 0.0, 0.5), job("gone"), job("there")
    for one in (late, gone, there):
        lanes.put(one)
    gone.future.cancel()
    left = lanes.clear(0.5)
    assert [(one, type(why)) for one, why in left] == [(late, EngineExpired)]
    assert names(lanes.take(1, 0.5)) == ["there"] and not lanes


async def test_a_burst_may_wait_as_long_as_it_has_time() -> None:
    """The queue was empty a moment ago: that they are many is no reason to send them away."""
    lanes = Lanes()
    for i in range(500):
        lanes.put(job(str(i), 0.0, 0.05))
    assert not lanes.clear(0.049) and len(lanes) == 500


async def test_once_a_queue_stands_those_leave_who_have_waited_half_of_their_time() -> None:
    lanes = Lanes()
    lanes.put(job("first"))
    now = INTERVAL_S + 0.01  # and it has not been empty since
    lanes.put(job("half", now - 0.03, now + 0.02))
    lanes.put(job("fresh", now - 0.01, now + 0.04))
    left = lanes.clear(now)
    assert [(one.query.features["name"], type(why)) for one, why in left] == [("half", EngineOverloaded)]
    assert names(lanes.take(2, now)) == ["first", "fresh"]
    lanes.put(job("half", now, now + 0.04))  # it was empty
    assert not lanes.clear(now + 0.03)
