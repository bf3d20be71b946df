"""The engine's queue and thread, with batch paths that are slow or broken on purpose."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pytest

from ranking.batch import Query, Ranked
from ranking.batcher import InlineEngine, LocalEngine
from ranking.desk import Desk
from ranking.errors import EngineError, EngineExpired, EngineStopped


def query(name: str) -> Query:
    return Query(features={"name": name}, sources={"popular": 1}, count=1)


def ranked(name: str) -> Ranked:
    number = int(name) if name.isdigit() else -1
    return Ranked(np.array([number]), np.zeros(1, np.float32), np.zeros(1, np.float32), np.zeros(1, np.uint8))


class Path:
    """A batch path that echoes its queries; waits at a gate; fails on `bad`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[str]] = []

    def recommend(self, queries: Sequence[Query], clock: Any) -> list[Ranked]:
        names = [str(one.features["name"]) for one in queries]
        self.batches.append(names)
        self.entered.set()
        self.gate.wait(10)
        with clock("score"):
            if "bad" in names:
                raise ValueError("bad query")
            return [ranked(name) for name in names]


class UpTo:
    """A policy that learns nothing."""

    def __init__(self, most: int) -> None:
        self.most = most

    def take(self, waiting: Collection[Query]) -> int:
        return min(len(waiting), self.most)

    def saw(self, queries: Sequence[Query], seconds: float) -> None:
        pass

    def drain_s(self, waiting: int) -> float:
        return 0.0


def engine(path: Path, **options: Any) -> LocalEngine:
    policy = UpTo(options.pop("max_batch", 8))
    one = LocalEngine(Desk({"m@1": path}, policy, **options))  # type: ignore[dict-item, arg-type]
    one.start()
    return one


async def test_every_caller_gets_its_own_answer() -> None:
    path = Path()
    one = engine(path)
    answers = await asyncio.gather(*(one.submit("m@1", query(str(i))) for i in range(100)))
    assert [int(answer.ranked.rows[0]) for answer in answers] == list(range(100))
    await one.stop()


async def test_what_queues_while_a_batch_runs_is_the_next_one_up_to_the_limit() -> None:
    path = Path()
    path.gate.clear()
    one = engine(path, max_batch=4)
    tasks = [asyncio.create_task(one.submit("m@1", query("0")))]
    await asyncio.to_thread(path.entered.wait, 10)
    tasks += [asyncio.create_task(one.submit("m@1", query(str(i)))) for i in range(1, 7)]
    await asyncio.sleep(0)
    path.gate.set()
    answers = await asyncio.gather(*tasks)
    assert path.batches == [["0"], ["1", "2", "3", "4"], ["5", "6"]]
    assert [answer.batch_size for answer in answers] == [1, 4, 4, 4, 4, 2, 2]
    assert all(answer.stages["score"] >= 0 and answer.queue_s >= 0 for answer in answers)
    await one.stop()


async def test_one_bad_query_in_a_batch_fails_alone() -> None:
    path = Path()
    path.gate.clear()
    one = engine(path)
    first = asyncio.create_task(one.submit("m@1", query("0")))
    await asyncio.to_thread(path.entered.wait, 10)
    tasks = [asyncio.create_task(one.submit("m@1", query(name))) for name in ("1", "bad", "2")]
    await asyncio.sleep(0)
    path.gate.set()
    results = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert isinstance(results[2], EngineError) and "ValueError: bad query" in str(results[2])
    assert [int(one.ranked.rows[0]) for one in results if not isinstance(one, BaseException)] == [0, 1, 2]
    await one.stop()


async def test_a_caller_that_has_gone_leaves_before_the_forward_pass() -> None:
    path = Path()
    path.gate.clear()
    one = engine(path)
    first = asyncio.create_task(one.submit("m@1", query("0")))
    await asyncio.to_thread(path.entered.wait, 10)
    gone, stays = (asyncio.create_task(one.submit("m@1", query(name))) for name in ("1", "2"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    path.gate.set()
    await asyncio.gather(first, stays)
    assert path.batches == [["0"], ["2"]]
    await one.stop()


async def test_whose_time_is_up_leaves_before_the_forward_pass() -> None:
    path = Path()
    path.gate.clear()
    one = engine(path)
    first = asyncio.create_task(one.submit("m@1", query("0")))
    await asyncio.to_thread(path.entered.wait, 10)
    late = asyncio.create_task(one.submit("m@1", query("1"), expires_at=time.perf_counter()))
    stays = asyncio.create_task(one.submit("m@1", query("2"), expires_at=time.perf_counter() + 3600))
    await asyncio.sleep(0)
    path.gate.set()
    await asyncio.gather(first, stays)
    with pytest.raises(EngineExpired):
        await late
    assert path.batches == [["0"], ["2"]]
    await one.stop()


async def test_bulk_queries_are_taken_when_no_other_waits() -> None:
    path = Path()
    path.gate.clear()
    one = engine(path, max_batch=1)
    tasks = [asyncio.create_task(one.submit("m@1", query("0")))]
    await asyncio.to_thread(path.entered.wait, 10)
    tasks += [asyncio.create_task(one.submit("m@1", query(name), bulk=name != "3")) for name in ("1", "2", "3")]
    await asyncio.sleep(0)
    path.gate.set()
    await asyncio.gather(*tasks)
    assert path.batches == [["0"], ["3"], ["1"], ["2"]]
    await one.stop()


async def test_bulk_work_is_done_piece_by_piece_when_no_shopper_waits() -> None:
    """A shopper who comes between two pieces goes before the second; bulk queries keep no piece from its turn."""
    path, done = Path(), list[str]()
    one = engine(path, max_batch=1)

    def piece(name: str) -> Callable[[Desk], None]:
        return lambda desk: done.append(f"{name} after {[batch[0] for batch in path.batches]}")

    path.gate.clear()
    shoppers = [asyncio.ensure_future(one.submit("m@1", query(name))) for name in ("first", "second")]
    crowd = [asyncio.ensure_future(one.submit("m@1", query(name), bulk=True)) for name in ("a", "b")]
    pieces = [asyncio.ensure_future(one.do(piece(name), bulk=True)) for name in ("x", "y")]
    await asyncio.to_thread(path.entered.wait, 10)
    path.gate.set()
    await asyncio.gather(*shoppers, *crowd, *pieces)
    assert done == ["x after ['first', 'second']", "y after ['first', 'second', 'a']"]
    await one.stop()


async def test_bulk_work_fails_for_its_caller_and_is_left_out_once_he_has_gone() -> None:
    path, done = Path(), list[str]()
    one = engine(path)

    def fail(desk: Desk) -> None:
        raise ValueError("a bad piece")

    with pytest.raises(ValueError, match="a bad piece"):
        await one.do(fail, bulk=True)
    path.gate.clear()
    shopper = asyncio.ensure_future(one.submit("m@1", query("1")))
    await asyncio.to_thread(path.entered.wait, 10)
    gone = asyncio.ensure_future(one.do(lambda desk: done.append("gone"), bulk=True))
    stays = asyncio.ensure_future(one.do(lambda desk: done.append("stays"), bulk=True))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    path.gate.set()
    await asyncio.gather(shopper, stays)
    assert done == ["stays"]
    await one.stop()


@pytest.mark.parametrize("kind", [LocalEngine, InlineEngine])
async def test_stopping_does_the_bulk_work_that_waits(kind: type[LocalEngine] | type[InlineEngine]) -> None:
    one, done = kind(Desk({}, UpTo(1))), list[int]()  # type: ignore[arg-type]
    one.start()
    pieces = [asyncio.ensure_future(one.do(lambda desk, i=i: done.append(i), bulk=True)) for i in range(3)]
    await asyncio.sleep(0)
    await one.stop()
    await asyncio.gather(*pieces)
    assert done == [0, 1, 2]
    with pytest.raises(EngineStopped):
        await one.do(lambda desk: None, bulk=True)


async def test_stopping_answers_what_is_queued_and_refuses_what_comes_after() -> None:
    path = Path()
    path.gate.clear()
    one = engine(path, max_batch=1)
    tasks = [asyncio.create_task(one.submit("m@1", query(str(i)))) for i in range(3)]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(one.stop())
    await asyncio.sleep(0)
    path.gate.set()
    await asyncio.gather(*tasks, stopping)
    with pytest.raises(EngineStopped):
        await one.submit("m@1", query("9"))
