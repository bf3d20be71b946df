"""One answer out of a serving log: where it is looked for, files of earlier releases, and what is not there yet."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service import answer_lookup
from service.answer_id import answer_id, time_of
from service.answer_log import HOUR_S, AnswerLog
from service.answer_lookup import Lookup
from service.answer_table import AT_ONCE, SCHEMA
from service.errors import DeadlineExceeded, InvalidRequest, LogUnreadable, UnknownAnswer
from service.placements import Placement, PlacementRules
from tests.service.test_answer_log import NOON, VALUES, answered, files

SETTINGS = Placement({"personal": 150}, rules=PlacementRules(category_cap=3))


def put(log: AnswerLog, at: float, **changes: Any) -> str:
    its_id = answer_id(at)
    log.put(answered(1, at, recommendation_id=its_id, **changes))
    return its_id


def test_an_id_says_when_to_the_millisecond_and_ids_sort_by_time() -> None:
    times = [NOON + step / 1000 for step in range(0, 5000, 7)]
    ids = [answer_id(at) for at in times]
    assert ids == sorted(ids) and len(set(ids)) == len(ids) and {len(one) for one in ids} == {32}
    assert all(0 <= at - time_of(one) < 0.001 + 1e-6 for at, one in zip(times, ids, strict=True))
    assert answer_id(NOON)[:12] == answer_id(NOON)[:12] and answer_id(NOON) != answer_id(NOON)
    for text in ("", "0" * 31, "G" * 32, "0" * 32 + "\n"):
        with pytest.raises(InvalidRequest, match="no id of an answer"):
            time_of(text)


def test_an_id_lies_in_the_hour_whose_folder_has_the_answer() -> None:
    for at in (NOON, NOON + 1e-6, NOON + HOUR_S - 1e-6, NOON + HOUR_S - 0.0004, NOON - 1e-6):
        assert time_of(answer_id(at)) // HOUR_S == at // HOUR_S


async def test_a_row_is_found_among_many_before_and_after_compaction(tmp_path: Path) -> None:
    """With all that the log was told of it, whichever batch, group and file it is in."""
    now = NOON + 1800
    log = AnswerLog(tmp_path, clock=lambda: now)
    ids = []
    for number in range(3 * AT_ONCE):
        ids.append(put(log, NOON + number, degraded=[str(number)], settings=SETTINGS))
        if number % 50 == 0:
            log.flush()
    log.flush()
    lookup = Lookup(log, clock=lambda: now)
    for _ in ("as written", "compacted"):
        for number in (0, 1, 50, 51, AT_ONCE, len(ids) - 1):
            found = await lookup.find(ids[number])
            assert (found.degraded, found.at, found.settings) == ([str(number)], NOON + number, SETTINGS)
            assert found.values == VALUES and found.stages == {"features", "engine"} and found.batch_size == 3
        assert len(files(tmp_path)) in (1, 5)
        now = NOON + 2 * HOUR_S
        log.tidy()
    assert len(files(tmp_path)) == 1
    with pytest.raises(UnknownAnswer, match="does not have it"):
        await lookup.find(answer_id(NOON + 3.5))


async def test_files_of_before_a_column_are_read_and_compacted_with_those_after_it(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, clock=lambda: NOON + 1800)
    older, newer = put(log, NOON), ""
    log.flush()
    (path,) = files(tmp_path)
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["settings"]), path)
    newer = put(log, NOON + 1, settings=SETTINGS)
    log.flush()
    lookup = Lookup(log, clock=lambda: NOON + 1800)
    for _ in ("as written", "compacted"):
        assert (await lookup.find(older)).settings is None
        assert (await lookup.find(newer)).settings == SETTINGS
        AnswerLog(tmp_path, clock=lambda: NOON + 2 * HOUR_S).tidy()
    (whole,) = files(tmp_path)
    assert pq.read_schema(whole).names == SCHEMA.names


@pytest.mark.parametrize("text", ["{", '{"sources": {"mine": 5}}', '{"sources": {}, "later": 1}'])
def test_settings_that_another_release_wrote_are_not_guessed_at(text: str) -> None:
    assert answer_lookup.settings_of(text) is None


async def test_only_the_groups_that_may_have_it_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AnswerLog(tmp_path, clock=lambda: NOON + 1800)
    ids = []
    for number in range(40):
        ids.append(put(log, NOON + number))
        log.flush()
    read = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *of, **kw: (read.append(of), real(*of, **kw))[1])
    await Lookup(log, clock=lambda: NOON + 1800).find(ids[17])
    assert len(read) == 1


async def test_what_waits_to_be_written_is_written_for_it_and_of_another_process_waited_for(tmp_path: Path) -> None:
    mine, others = AnswerLog(tmp_path, flush_s=0.3), AnswerLog(tmp_path, flush_s=0.3)
    lookup = Lookup(mine)
    waiting = put(mine, time.time())
    assert (await lookup.find(waiting)).recommendation_id == waiting
    theirs = put(others, time.time())
    finding = asyncio.create_task(lookup.find(theirs))
    await asyncio.sleep(0.1)
    assert not finding.done()
    others.flush()
    assert (await finding).recommendation_id == theirs
    mine.flush_s = -answer_lookup.SPARE_S
    with pytest.raises(UnknownAnswer):
        await lookup.find(answer_id(time.time()))


async def test_a_slow_disk_ends_in_a_deadline_and_who_has_left_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reads at a time; those whose time is up before their turn are out of the queue."""
    began = 0

    def slowly(*_: object) -> None:
        nonlocal began
        began += 1
        time.sleep(0.5)

    monkeypatch.setattr(answer_lookup, "row_of", slowly)
    lookup = Lookup(AnswerLog(tmp_path), timeout_s=0.1)
    asked = [lookup.find(answer_id(time.time() - 60)) for _ in range(5)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, DeadlineExceeded) for one in found) and began == 1
    async with lookup.busy:  # when this is free, the thread has ended too
        pass


async def test_a_row_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, clock=lambda: NOON + 1800)
    its_id = put(log, NOON)
    log.flush()
    (path,) = files(tmp_path)
    whole = pq.read_table(path, partitioning=None)
    lookup = Lookup(log, clock=lambda: NOON + 1800)
    for column, value in (("request", "{"), ("request", '{"later": 1}'), ("features", None), ("endpoint", "guess")):
        place = whole.column_names.index(column)
        pq.write_table(whole.set_column(place, SCHEMA.field(column), pa.array([value], pa.string())), path)
        with pytest.raises(LogUnreadable, match=its_id):
            await lookup.find(its_id)


async def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, clock=lambda: NOON + 1800)
    folder = log.folder(int(NOON // HOUR_S))
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    with pytest.raises(LogUnreadable, match="could not be read"):
        await Lookup(log, clock=lambda: NOON + 1800).find(answer_id(NOON))


def test_settings_are_logged_as_json_that_reads_back() -> None:
    assert msgspec.json.decode(msgspec.json.encode(SETTINGS), type=Placement) == SETTINGS
