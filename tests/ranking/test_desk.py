"""What is due between two batches: in order, on whichever engine, and nobody else's trouble."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ranking.batcher import InlineEngine, LocalEngine
from ranking.desk import Desk
from ranking.errors import EngineExpired
from ranking.live import Change
from tests.ranking.test_batcher import Path, UpTo, query


class Changing(Path):
    """A batch path that notes the changes that it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def change(self, changes: list[Change]) -> None:
        self.told += changes


def engines(path: Path) -> tuple[LocalEngine, InlineEngine]:
    return tuple(kind(Desk({"m@1": path}, UpTo(8))) for kind in (LocalEngine, InlineEngine))  # type: ignore[return-value, arg-type, dict-item]


@pytest.mark.parametrize("which", [0, 1])
async def test_who_joins_is_told_of_every_change_once_and_in_order(which: int) -> None:
    """Those before it joined are handed to it; those after it come by themselves."""
    old, new = Changing(), Changing()
    engine = engines(old)[which]
    engine.start()
    changes: list[list[Change]] = [[(f"i{n}", {"price": float(n)})] for n in range(4)]
    engine.change(changes[0])
    engine.change(changes[1])
    joining = asyncio.ensure_future(engine.do(lambda desk: desk.join("m@2", new, changes[:2])))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    engine.change(changes[2])
    await joining
    engine.change(changes[3])
    assert (await engine.submit("m@2", query("7"))).ranked.rows.tolist() == [7]
    assert new.told == old.told == [one for piece in changes for one in piece]
    await engine.stop()


@pytest.mark.parametrize("which", [0, 1])
async def test_a_version_that_has_left_is_refused_and_the_others_are_answered(which: int) -> None:
    path = Path()
    engine = engines(path)[which]
    engine.start()
    await engine.do(lambda desk: desk.join("m@2", path, ()))  # type: ignore[arg-type]
    await engine.do(lambda desk: desk.leave(["m@1"]))
    with pytest.raises(EngineExpired, match="m@1 is not loaded any more"):
        await engine.submit("m@1", query("1"))
    assert (await engine.submit("m@2", query("2"))).ranked.rows.tolist() == [2]
    await engine.stop()


async def test_who_waits_for_a_version_that_leaves_meanwhile_is_refused() -> None:
    path = Path()
    path.gate.clear()
    engine = engines(path)[0]
    engine.start()
    first = asyncio.create_task(engine.submit("m@1", query("0")))
    await asyncio.to_thread(path.entered.wait, 10)
    late = asyncio.create_task(engine.submit("m@1", query("1")))
    await asyncio.sleep(0)
    leaving = asyncio.create_task(engine.do(lambda desk: desk.leave(["m@1"])))
    await asyncio.sleep(0)
    path.gate.set()
    assert (await first).ranked.rows.tolist() == [0]
    with pytest.raises(EngineExpired):
        await late
    await leaving
    await engine.stop()


@pytest.mark.parametrize("which", [0, 1])
async def test_what_fails_between_two_batches_fails_for_who_asked_and_ends_nothing(which: int) -> None:
    engine = engines(Path())[which]
    engine.start()

    def fails(desk: Desk) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await engine.do(fails)
    assert (await engine.submit("m@1", query("3"))).ranked.rows.tolist() == [3]
    await engine.stop()
