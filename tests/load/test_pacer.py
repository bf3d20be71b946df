"""Every pacer keeps the same promises."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import pytest

from load.pacer import Pacer, SpinPacer, TimerfdPacer, make_pacer


@pytest.fixture(params=[SpinPacer, TimerfdPacer])
async def pacer(request: pytest.FixtureRequest) -> AsyncIterator[Pacer]:
    if request.param is TimerfdPacer:
        if sys.platform != "linux":
            pytest.skip("timerfd is Linux's")
        pacer: Pacer = TimerfdPacer(asyncio.get_running_loop())
    else:
        pacer = SpinPacer()
    yield pacer
    pacer.close()


async def test_a_pacer_never_wakes_early(pacer: Pacer) -> None:
    for wait in (0.0001, 0.0011, 0.0049, 0.02):
        at = time.monotonic() + wait
        await pacer.until(at)
        assert time.monotonic() >= at - 1e-9


async def test_a_past_moment_returns_without_giving_way(pacer: Pacer) -> None:
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await pacer.until(time.monotonic() - 1)
    assert turns == []


async def test_the_loop_serves_others_during_the_wait(pacer: Pacer) -> None:
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await pacer.until(time.monotonic() + 0.01)
    assert turns == [1]


async def test_a_cancelled_wait_does_not_end_the_next_one_early(pacer: Pacer) -> None:
    task = asyncio.ensure_future(pacer.until(time.monotonic() + 0.01))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    at = time.monotonic() + 0.03
    await pacer.until(at)
    assert time.monotonic() >= at - 1e-9


async def test_linux_gets_the_timer_that_does_not_spin() -> None:
    pacer = make_pacer(asyncio.get_running_loop())
    assert isinstance(pacer, TimerfdPacer if sys.platform == "linux" else SpinPacer)
    pacer.close()
