"""The serving log on real files, read back by a real DuckDB as an analyst would."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.user import ViewState
from service import answer_log, answer_table
from service.answer_log import HOUR_S, AnswerLog
from service.answer_table import SCHEMA, batches_of, compact, write
from service.answered import Answered
from service.http.strict import StrictDecoder
from service.wire import Filter, Item, Price, RankRequest, RecommendRequest, Session

ROOT = Path(__file__).parents[2]
NOON = 1_790_000_000.0 // HOUR_S * HOUR_S
"""The beginning of an hour long over."""
VALUES: dict[str, Any] = {
    "user_activity:spend_30d": 0.10000000149011612,
    "user_activity:third": 1 / 3,
    "user_activity:tiny": 5e-324,
    "user_activity:views_1h": 2**63 - 1,
    "user_profile:country": None,
    "user_profile:known": True,
    "user_recent:item_ids": ["a", "", 'quote"\\', "日本", "\x00"],
    "user_recent:purchased_item_ids": [],
}


def answered(number: int = 0, at: float = NOON, **changes: Any) -> Answered:
    one = Answered(
        recommendation_id=f"{number:032x}",
        at=at,
        endpoint="recommend",
        request=RecommendRequest(user_id=f"u{number}", session=Session(["i1", "i2"]), item_id="i9", count=5),
        model="default",
        version="3",
        model_group="default",
        values=VALUES,
        views={"user_recent": ViewState("present", 12.345678901), "user_profile": ViewState("missing", None)},
        items=[Item("i1", 0.5, "personal"), Item("i2", -1.25, "popular")],
        sources={"personal": 150, "popular": 50},
        degraded=["count"],
        stages={"features": 0.001234567, "engine": 0.004},
        took_ms=6.789,
        batch_size=3,
    )
    for name, value in changes.items():
        setattr(one, name, value)
    return one


def read(directory: Path) -> list[dict[str, Any]]:
    """All rows, by recommendation id, as a plain reader of the documented pattern sees them."""
    pattern = f"{directory}/date=*/hour=*/*.parquet"
    if not files(directory):
        return []
    with duckdb.connect() as connection:
        found = connection.execute(f"FROM read_parquet('{pattern}', hive_partitioning = true)")
        rows: list[dict[str, Any]] = found.fetch_arrow_table().to_pylist()
    return sorted(rows, key=lambda row: str(row["recommendation_id"]))


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("date=*/hour=*/*.parquet"))


def ids(directory: Path) -> list[int]:
    return [int(row["recommendation_id"], 16) for row in read(directory)]


def fill(log: AnswerLog, numbers: range, at: float = NOON, each: int = 1) -> None:
    """`each` answers a file."""
    for number in numbers:
        log.put(answered(number, at))
        if (number + 1) % each == 0:
            log.flush()
    log.flush()


def test_an_answer_is_read_back_as_it_was_put(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    user = "ü\u202e\x00'%s\n🛒"
    request = RecommendRequest(user_id=user, context={"spend_30d": 0.1}, filter=Filter(["Mugs"], Price(0.1, None)))
    log.put(answered(1, NOON + 0.123456, request=request))
    ranked = RankRequest(["i1", "i2", "i1"], placement="similar")
    nothing: dict[str, Any] = {"values": {}, "views": {}, "items": [], "sources": {}, "stages": {}, "degraded": []}
    log.put(answered(2, endpoint="rank", request=ranked, **nothing))
    log.flush()
    first, second = read(tmp_path)
    assert list(first)[: len(SCHEMA)] == SCHEMA.names
    assert json.loads(first["features"]) == VALUES
    assert msgspec.json.decode(first["request"], type=RecommendRequest) == request
    assert StrictDecoder(RecommendRequest).decode(first["request"].encode()) == request
    assert abs(first["time"].timestamp() - NOON - 0.123456) < 1e-6
    del first["time"], first["request"], first["features"]
    assert first == {
        "recommendation_id": f"{1:032x}", "endpoint": "recommend", "user_id": user, "session_item_ids": [],
        "item_id": None, "placement": "home", "count": 20, "model": "default", "version": "3",
        "model_group": "default",
        "views": [
            {"view": "user_recent", "status": "present", "age_s": 12.345678901},
            {"view": "user_profile", "status": "missing", "age_s": None},
        ],
        "sources": [{"source": "personal", "quota": 150}, {"source": "popular", "quota": 50}],
        "items": [
            {"item_id": "i1", "score": 0.5, "source": "personal"},
            {"item_id": "i2", "score": -1.25, "source": "popular"},
        ],
        "stages": [{"stage": "features", "seconds": 0.001234567}, {"stage": "engine", "seconds": 0.004}],
        "degraded": ["count"], "took_ms": 6.789, "batch_size": 3, "settings": None,
        "date": first["date"], "hour": first["hour"],
    }  # fmt: skip
    assert (second["endpoint"], second["count"], second["user_id"], second["item_id"]) == ("rank", 2, None, None)
    assert StrictDecoder(RankRequest).decode(second["request"].encode()) == ranked
    assert second["features"] == "{}"
    assert [second[name] for name in ("views", "sources", "items", "stages", "degraded")] == [[]] * 5


def test_lists_stay_with_their_rows_across_batches_of_conversion(tmp_path: Path) -> None:
    log, chance = AnswerLog(tmp_path), random.Random(7)
    wanted = []
    for number in range(2 * answer_table.AT_ONCE + 3):
        items = [Item(f"{number}-{place}", float(place), "popular") for place in range(chance.randrange(4))]
        wanted.append([item.item_id for item in items])
        log.put(answered(number, items=items, request=RankRequest(["x"], user_id=str(number))))
    log.flush()
    rows = read(tmp_path)
    assert [[item["item_id"] for item in row["items"]] for row in rows] == wanted
    assert [row["user_id"] for row in rows] == [str(number) for number in range(len(wanted))]


def test_a_full_queue_drops_and_counts_and_never_waits(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, max_queue=10)
    one = answered()
    with log.writing:  # a writer that hangs
        began = time.perf_counter()
        for _ in range(1000):
            log.put(one)
        assert time.perf_counter() - began < 0.5
    assert (len(log.queue), log.dropped) == (10, 990)
    log.flush()
    assert (log.written, log.dropped, len(read(tmp_path))) == (10, 990, 10)


def test_what_comes_after_the_end_is_counted_as_dropped(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    log.start()
    log.put(answered(1))
    log.stop()
    log.put(answered(2))
    assert (log.written, log.dropped, ids(tmp_path)) == (1, 1, [1])
    assert not log.thread.is_alive()


def test_a_refused_write_loses_its_batch_only_and_the_thread_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    directory.write_text("in the way")
    log = AnswerLog(directory, flush_s=0.05)
    log.start()
    log.put(answered(1))
    log.put(answered(2))
    until(lambda: log.failed == 2)
    assert "log" in log.last_error
    directory.unlink()
    log.put(answered(3))
    until(lambda: log.written == 1)
    log.stop()
    assert (ids(directory), log.written, log.failed) == ([3], 1, 2)


def test_one_answer_that_cannot_be_written_is_lost_alone(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    log.put(answered(1))
    log.put(answered(2, values={"a:b": object()}))
    log.put(answered(3, request=RecommendRequest(user_id="\ud800")))
    log.put(answered(4))
    log.flush()
    assert (ids(tmp_path), log.written, log.failed) == ([1, 4], 2, 2)
    assert f"{3:032x}" in log.last_error


def test_the_thread_writes_without_being_asked(tmp_path: Path) -> None:
    """By time, and before its time when enough wait."""
    for flush_s, flush_rows, count in ((0.05, 1000, 1), (60.0, 10, 10)):
        log = AnswerLog(tmp_path / str(count), flush_s=flush_s, flush_rows=flush_rows)
        log.start()
        for number in range(count):
            log.put(answered(number))
        until(lambda log=log, count=count: log.written == count)  # type: ignore[misc]
        log.stop()


def test_every_answer_lies_in_the_utc_hour_of_its_time(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    for number, at in enumerate((0.0, HOUR_S - 0.001, HOUR_S, 26 * HOUR_S)):
        log.put(answered(number, at))
    log.flush()
    folders = [path.parent.relative_to(tmp_path).as_posix() for path in files(tmp_path)]
    assert folders == ["date=1970-01-01/hour=00", "date=1970-01-01/hour=01", "date=1970-01-02/hour=02"]
    assert [pq.ParquetFile(path).metadata.num_rows for path in files(tmp_path)] == [2, 1, 1]
    assert pq.ParquetFile(files(tmp_path)[0]).metadata.row_group(0).column(0).compression == "ZSTD"


def test_compaction_makes_one_file_an_hour_and_changes_no_row(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, clock=lambda: NOON + 2 * HOUR_S)
    fill(log, range(40), each=4)
    before = read(tmp_path)
    log.tidy()
    assert len(files(tmp_path)) == 1
    assert read(tmp_path) == before
    log.put(answered(99))  # late
    log.flush()
    log.tidy()
    assert len(files(tmp_path)) == 1
    assert ids(tmp_path) == [*range(40), 99]
    assert leftovers(tmp_path) == []


def test_an_hour_is_left_alone_until_two_minutes_after_its_end(tmp_path: Path) -> None:
    now = NOON + HOUR_S + 119
    log = AnswerLog(tmp_path, clock=lambda: now)
    fill(log, range(3))
    log.tidy()
    assert len(files(tmp_path)) == 3
    now += 2
    log.tidy()
    assert len(files(tmp_path)) == 1


STEPS = ("merge", "sync", "exchange", "settle")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_anywhere_in_a_compaction_changes_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    """Neither before the next pass clears up, nor after it; the process dies before or after each step."""
    log = AnswerLog(tmp_path, clock=lambda: NOON + 2 * HOUR_S)
    fill(log, range(12), each=3)
    before = read(tmp_path)
    real = getattr(answer_table, step)

    def dying(*arguments: Any) -> Any:
        outcome = real(*arguments) if after else None
        if step == "merge":
            list(outcome or ())
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(answer_table, step, dying)
        if step != "settle":  # a killed process runs no `finally`
            patch.setattr(answer_table, "settle", lambda staged: None)
        with pytest.raises(Killed):
            log.tidy()
    assert read(tmp_path) == before
    AnswerLog(tmp_path, clock=log.clock).tidy()
    assert read(tmp_path) == before
    assert (len(files(tmp_path)), leftovers(tmp_path)) == (1, [])


class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


def test_a_file_that_comes_while_its_hour_is_compacted_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it comes before or after the two directories change names."""
    log = AnswerLog(tmp_path, clock=lambda: NOON + 2 * HOUR_S)
    fill(log, range(3))
    late = AnswerLog(tmp_path)

    def exchange(one: Path, other: Path) -> None:
        fill(late, range(3, 4))
        real(one, other)
        fill(late, range(4, 5))

    real = answer_table.exchange
    monkeypatch.setattr(answer_table, "exchange", exchange)
    log.tidy()
    assert ids(tmp_path) == [0, 1, 2, 3, 4]
    assert leftovers(tmp_path) == []


def test_a_writer_whose_folder_is_exchanged_under_it_writes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compactor = AnswerLog(tmp_path, clock=lambda: NOON + 2 * HOUR_S)
    fill(compactor, range(2))
    real = answer_table.sync
    moments = [True]

    def sync(path: Path) -> None:
        if path.suffix == ".partial" and moments:
            moments.clear()
            compactor.tidy()
        real(path)

    monkeypatch.setattr(answer_table, "sync", sync)
    log = AnswerLog(tmp_path)
    fill(log, range(2, 3))
    assert (log.written, log.failed, ids(tmp_path)) == (1, 0, [0, 1, 2])


def test_where_directories_cannot_be_exchanged_hours_stay_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(one: Path, other: Path) -> None:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(answer_table, "exchange", refuse)
    log = AnswerLog(tmp_path, clock=lambda: NOON + 2 * HOUR_S)
    fill(log, range(3))
    log.tidy()
    assert (len(files(tmp_path)), ids(tmp_path), leftovers(tmp_path)) == (3, [0, 1, 2], [])
    assert "not here" in log.last_error and not log.compacts


def test_only_one_at_a_time_compacts(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, clock=lambda: NOON + 2 * HOUR_S)
    fill(log, range(2))
    with answer_log.held(tmp_path / ".tidying") as mine:
        assert mine
        log.tidy()
    assert len(files(tmp_path)) == 2


def test_a_damaged_file_keeps_only_its_own_hour_from_being_compacted(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, clock=lambda: NOON + 3 * HOUR_S)
    fill(log, range(2))
    fill(log, range(2, 4), at=NOON + HOUR_S)
    files(tmp_path)[0].write_bytes(b"PAR1")
    log.tidy()
    hours = [path.parent for path in files(tmp_path)]
    assert len(set(hours)) == 2 and len(hours) == 3
    assert "hour=" in log.last_error


def test_partitions_older_than_keep_days_go_and_younger_stay(tmp_path: Path) -> None:
    now = NOON + 14 * 24 * HOUR_S + HOUR_S
    log = AnswerLog(tmp_path, clock=lambda: now)
    fill(log, range(1), at=NOON - 0.5)
    fill(log, range(1, 2), at=NOON)
    log.tidy()
    assert ids(tmp_path) == [1]
    now += 1
    log.tidy()
    assert ids(tmp_path) == [] and list(tmp_path.glob("date=*")) == []


def test_answers_are_written_on_time_while_an_hour_is_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = AnswerLog(tmp_path)
    fill(old, range(20))

    def slowly(parts: list[Path], whole: Path) -> Any:
        for one in real(parts, whole):
            time.sleep(0.05)
            yield one

    real = answer_table.merge
    monkeypatch.setattr(answer_table, "merge", slowly)
    log = AnswerLog(tmp_path, flush_s=0.1, clock=lambda: NOON + 2 * HOUR_S)
    log.start()
    until(lambda: leftovers(tmp_path) != [])
    log.put(answered(99, NOON + 2 * HOUR_S))
    until(lambda: log.written == 1)
    assert leftovers(tmp_path) != [], "the compaction should still be running"
    log.stop()
    assert (ids(tmp_path), leftovers(tmp_path)) == ([*range(20), 99], [])


def leftovers(directory: Path) -> list[Path]:
    return [*directory.glob("date=*/.hour=*"), *directory.glob("date=*/hour=*/.*")]


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not true():
        assert time.monotonic() < ends, "waited 10 s"
        time.sleep(0.005)


def writer(directory: str, first: str, count: str) -> None:
    """A process of its own: writes until it is killed or has written `count`, and says what is surely on disk."""
    log = AnswerLog(Path(directory), flush_s=0.02, flush_rows=50, clock=lambda: NOON + 2 * HOUR_S)
    log.start()
    for number in range(int(first), int(first) + int(count)):
        log.put(answered(number, NOON + number % 2 * HOUR_S))
        if number % 100 == 99:
            log.flush()
            log.tidy()
            print(number + 1, flush=True)
    log.stop()
    assert (log.written, log.failed, log.dropped) == (int(count), 0, 0), log.last_error


def start(*arguments: object) -> subprocess.Popen[str]:
    code = "import sys; from tests.service.test_answer_log import writer; writer(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_two_processes_at_once_lose_nothing_and_a_reader_sees_each_row_once(tmp_path: Path) -> None:
    """While both write and compact the same hours."""
    processes = [start(tmp_path, first, 1500) for first in (0, 10_000)]
    ended = threading.Event()
    doubles: list[int] = []

    def watch() -> None:
        while not ended.is_set():
            try:
                found = ids(tmp_path)
            except (duckdb.Error, FileNotFoundError):  # a file that was listed is compacted away: told, never read half
                continue
            if found:
                doubles.append(len(found) - len(set(found)))

    reader = threading.Thread(target=watch)
    reader.start()
    assert [process.wait(60) for process in processes] == [0, 0]
    ended.set()
    reader.join()
    for process in processes:
        process.communicate()
    assert ids(tmp_path) == [*range(1500), *range(10_000, 11_500)]
    assert doubles and not any(doubles)
    AnswerLog(tmp_path, clock=lambda: NOON + 3 * HOUR_S).tidy()
    assert ids(tmp_path) == [*range(1500), *range(10_000, 11_500)]
    assert (len(files(tmp_path)), leftovers(tmp_path)) == (2, [])


def test_kill_9_leaves_whole_files_and_all_that_was_flushed(tmp_path: Path) -> None:
    process = start(tmp_path, 0, 1_000_000)
    assert process.stdout is not None
    surely = 0
    while surely < 1000:
        surely = int(process.stdout.readline())
    time.sleep(random.random() / 50)
    os.kill(process.pid, signal.SIGKILL)
    for line in process.communicate()[0].splitlines():
        surely = int(line)
    found = ids(tmp_path)
    assert found[:surely] == [*range(surely)]
    assert found == sorted(set(found))
    AnswerLog(tmp_path, clock=lambda: NOON + 3 * HOUR_S).tidy()
    assert (ids(tmp_path), leftovers(tmp_path)) == (found, [])


def test_files_of_an_older_release_are_compacted_with_newer_ones(tmp_path: Path) -> None:
    """A column that the older one did not have is null there."""
    batches, _ = batches_of([answered(1), answered(2)])
    older, newer = (pa.Table.from_batches([one]) for one in (batches[0].slice(0, 1), batches[0].slice(1)))
    folder = tmp_path / "date=2026-11-01" / "hour=10"
    write(older.drop_columns(["model_group"]), folder, "1.parquet")
    write(newer, folder, "2.parquet")
    for _ in compact(folder):
        pass
    (whole,) = folder.glob("*.parquet")
    assert pq.read_table(whole, partitioning=None)["model_group"].to_pylist() == [None, "default"]
