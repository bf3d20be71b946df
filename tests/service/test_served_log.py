"""Ages as served out of the serving log: after a restart, and in windows longer than a day."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.freshness import ViewSpec
from features.user import ViewState
from service.answer_log import LOG, AnswerLog
from service.answered import Answered
from service.errors import DeadlineExceeded, InvalidRequest, LogUnreadable
from service.freshness import Freshness
from service.freshness_wire import Group
from service.served_log import ServedLog, restore
from service.tallies import Tallies
from service.wire import Item, RecommendRequest

NOW = 1_795_000_020.0
DAY_S = 86400.0
SLOS: dict[str, float | None] = {"v": 60.0, "w": None}


def answered(at: float, age: float | None, placement: str = "home", version: str = "1") -> Answered:
    views = {"v": ViewState("missing" if age is None else "present", age), "w": ViewState("present", 3.0)}
    request = RecommendRequest(user_id="u", placement=placement)
    return Answered("0" * 32, at, "recommend", request, "default", version, "default", {}, views,
                    [Item("i", 1.0, "popular")], {"popular": 5}, [], {"engine": 0.001}, 1.0, 1)  # fmt: skip


def test_what_the_log_has_is_what_was_tallied(tmp_path: Path) -> None:
    """Restored from Parquet the day is the same as told live; older rows and those of this process stay out."""
    log, live, restored = AnswerLog(tmp_path / LOG), Tallies(SLOS), Tallies(SLOS)
    rng = np.random.default_rng(3)
    for n in range(500):
        at, age = NOW - 170 * n - 5, None if n % 9 == 0 else float(rng.lognormal(3, 2))
        one = answered(at, age, "home" if n % 2 else "cart", str(n % 3))
        log.put(one)
        live.add(at, one.request.placement, one.version, one.views)
    log.put(answered(NOW - 90_000, 1.0))
    log.put(answered(NOW + 1, 1.0))
    log.flush()
    assert restore(restored, tmp_path / LOG, NOW) is None
    for view in ("v", "w"):
        for by in ("placement", "model_version", "hour"):
            assert restored.grouped(view, 86400, by, NOW) == live.grouped(view, 86400, by, NOW)


def test_a_log_that_is_not_there_is_nothing_and_a_broken_one_is_told(tmp_path: Path) -> None:
    assert restore(Tallies(SLOS), tmp_path / LOG, NOW) is None
    folder = tmp_path / LOG / "date=2026-11-18" / "hour=10"
    folder.mkdir(parents=True)
    (folder / "1-1-1.parquet").write_bytes(b"no parquet")
    assert "could not be read" in (restore(Tallies(SLOS), tmp_path / LOG, NOW) or "")


def log_of(directory: Path, every_s: float, count: int) -> tuple[AnswerLog, list[Answered]]:
    """Answers at regular intervals back from NOW, of two placements and three versions."""
    log, rng = AnswerLog(directory / LOG), np.random.default_rng(4)
    told = [
        answered(NOW - every_s * n - 5, None if n % 9 == 0 else float(rng.lognormal(3, 2)), "ab"[n % 2], str(n % 3))
        for n in range(count)
    ]
    for one in told:
        log.put(one)
    return log, told


def freshness(log: ServedLog | None) -> Freshness:
    sampler: Any = type("Views", (), {"specs": [ViewSpec("v", "user", "user_id", 60.0, None)]})()
    return Freshness(sampler, Tallies(SLOS), lambda: asyncio.sleep(0, []), log=log, now=lambda: NOW)


def requests(groups: list[Group]) -> dict[str, int]:
    return {one.group: one.requests for one in groups}


async def test_a_week_is_answered_from_the_log_as_if_all_of_it_had_been_tallied(tmp_path: Path) -> None:
    """The same groups, shares and quantiles; what waits to be written is in it, what is older than the window not."""
    log, told = log_of(tmp_path, 1800, 400)  # eight days
    fresh = freshness(ServedLog(tmp_path / LOG, 14.0, log.flush))
    whole = Tallies(SLOS)
    for one in told:  # a tally of any length, an hour at a time
        if one.at >= NOW - 7 * DAY_S:
            part = Tallies(SLOS)
            part.add(one.at, one.request.placement, one.version, one.views)
            for minute, cells in part.minutes.items():
                kept = whole.minutes.setdefault(minute, cells)
                assert kept is cells or not kept.keys() & cells.keys()
                kept |= cells
    for by in ("placement", "model_version", "hour", "minute"):
        report = await fresh.view("v", "7d", by)
        expected = whole.group("v", whole.cells("v", 7 * DAY_S, NOW, fine=True), by)
        assert report.groups == expected and report.window_s == 7 * DAY_S
    assert sum(requests(report.groups).values()) == 336


async def test_how_long_a_window_may_be_is_how_long_the_log_is_kept(tmp_path: Path) -> None:
    for log, most, longer in ((ServedLog(tmp_path, 3.0), "3d", "73h"), (None, "1d; the serving log is off", "25h")):
        assert (await freshness(log).view("v", "24h", "hour")).groups == []
        with pytest.raises(InvalidRequest, match=f"at most {most}"):
            await freshness(log).view("v", longer, "hour")


async def test_a_log_that_cannot_be_read_or_takes_too_long_is_an_error_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / LOG / "date=2026-11-18" / "hour=10"
    folder.mkdir(parents=True)
    (folder / "1-1-1.parquet").write_bytes(b"no parquet")
    with pytest.raises(LogUnreadable, match="the serving log could not be read"):
        await freshness(ServedLog(tmp_path / LOG, 14.0)).view("v", "7d", "hour")
    slow = ServedLog(tmp_path / LOG, 14.0, timeout_s=0.0)
    with pytest.raises(DeadlineExceeded, match="a shorter window takes less"):
        await freshness(slow).view("v", "7d", "hour")
    async with slow.busy:  # when this is free, the thread has ended too
        pass
