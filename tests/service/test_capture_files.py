"""Files of recorded traffic: cut by size and hour, bounded together, whole after whatever ends their process."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service import capture_files
from service.capture import Capture
from service.capture_files import HOUR_US, PARTIAL, WHOLE, TrafficFiles, settle
from service.config import CaptureConfig
from service.http.tape import Seen
from tests.service.test_capture import Row, partials, rows, seen, wholes

ROOT = Path(__file__).parents[2]
NOON_US = 1_795_003_200_000_000
LINE = b'{"at_us":1795003200000000,"method":"POST","path":"/v1/rank","headers":{},"body":null}\n'


def files(directory: Path, **changes: Any) -> TrafficFiles:
    now_s = changes.pop("now_s", NOON_US / 1e6)
    bounds: dict[str, Any] = {"file_bytes": 10_000, "whole_bytes": 100_000, "keep_s": 86400.0, **changes}
    return TrafficFiles(directory, **bounds, clock=lambda: now_s)


def fill(one: TrafficFiles, count: int, at_us: int = NOON_US, each_us: int = 1000) -> None:
    assert one.append([(at_us + number * each_us, LINE) for number in range(count)]) == (count, None)


def lines(directory: Path) -> int:
    return len(rows(directory))


def test_a_name_says_when_its_first_request_came_and_is_partial_until_whole(tmp_path: Path) -> None:
    one = files(tmp_path / "a" / "b")
    fill(one, 3)
    (path,) = partials(tmp_path / "a" / "b")
    assert path.name.startswith(f"20261118T120000.000000Z-{os.getpid()}-")
    assert path.read_bytes() == LINE * 3
    one.rotate()
    one.rotate()
    assert wholes(tmp_path / "a" / "b") == [path.with_name(path.name.removesuffix(PARTIAL) + WHOLE)]


def test_files_are_cut_where_one_would_grow_too_large(tmp_path: Path) -> None:
    """And rows appended one by one lie as those appended at once; no row is lost or cut."""
    for folder, step in (("at once", 1000), ("one by one", 1), ("some", 7)):
        one = files(tmp_path / folder, file_bytes=len(LINE) * 10 + 5, whole_bytes=10**9)
        for begin in range(0, 95, step):
            fill(one, min(step, 95 - begin), NOON_US + begin * 1000)
        one.rotate()
        sizes = [path.stat().st_size for path in wholes(tmp_path / folder)]
        assert sum(sizes) == 95 * len(LINE) and max(sizes) == 10 * len(LINE)
        assert len(sizes) == 10 or step == 7, folder
    assert lines(tmp_path / "some") == 95


def test_an_hour_has_a_file_of_its_own(tmp_path: Path) -> None:
    one = files(tmp_path)
    fill(one, 6, NOON_US, HOUR_US // 3)
    assert not one.over(NOON_US + HOUR_US * 2 - 1) and one.over(NOON_US + HOUR_US * 2)
    one.rotate()
    assert [path.read_bytes() for path in wholes(tmp_path)] == [LINE * 3] * 2
    assert not one.over(NOON_US + HOUR_US * 9)


def test_a_quiet_service_ends_its_file_when_the_hour_is_over(tmp_path: Path) -> None:
    one = Capture(tmp_path, CaptureConfig(), 1000, clock=lambda: NOON_US / 1e6)
    one.put(seen({}))
    one._pass(NOON_US + HOUR_US - 1, tidy=False)
    one.flush()
    assert len(partials(tmp_path)) == 1
    one._pass(NOON_US + HOUR_US, tidy=False)
    assert not partials(tmp_path) and lines(tmp_path) == 1


def test_the_bound_of_all_files_holds_after_every_write_and_the_oldest_go(tmp_path: Path) -> None:
    """Also with two writers; the newest rows are there, and no file of another name is touched."""
    other = tmp_path / "notes.ndjson"
    other.write_bytes(b"x" * 100_000)
    settings = CaptureConfig(max_file_mb=0.01, max_mb=0.05)
    ones = [Capture(tmp_path, settings, 1000, workers=2) for _ in range(2)]
    now, most = time.perf_counter_ns(), 0
    for number in range(1500):
        ones[number % 2].put(seen({"n": number}, now + number * 1000))
        if number % 10 > 7:
            ones[number % 2].flush()
            most = max(most, sum(path.stat().st_size for path in tmp_path.glob("2*")))
    for one in ones:
        one.stop()
    assert 25_000 < most <= 50_000
    other.unlink()
    kept = {int(msgspec.json.decode(row.body or "")["n"]) for row in rows(tmp_path)}
    assert max(kept) == 1499 and 0 not in kept and [one.written for one in ones] == [750, 750]


def test_a_row_that_fits_no_file_is_dropped_and_counted(tmp_path: Path) -> None:
    one = Capture(tmp_path, CaptureConfig(max_file_mb=0.001), 10_000)
    one.put(seen(b"a" * 2000))
    one.put(seen(b"a"))
    one.stop()
    assert (one.written, one.dropped, lines(tmp_path)) == (1, 1, 1)


def test_files_that_are_too_old_go_and_younger_ones_stay(tmp_path: Path) -> None:
    for day in range(5):
        one = files(tmp_path, now_s=0.0)
        fill(one, 1, NOON_US + day * 24 * HOUR_US)
        one.rotate()
    files(tmp_path, keep_s=2 * 86400.0, now_s=NOON_US / 1e6 + 4 * 86400).tidy()
    assert [path.name[:8] for path in wholes(tmp_path)] == ["20261120", "20261121", "20261122"]


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: a write that would is cut short, the next one refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_system_refuses_leaves_no_half_line_and_is_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = Capture(tmp_path, CaptureConfig(), 1000)
    one.put(seen({"user_id": "a"}))
    one.flush()
    (path,) = partials(tmp_path)
    before = path.read_bytes()
    for _ in range(3):
        one.put(seen({"user_id": "b"}))
        with at_most(len(before) + 20):
            one.flush()
        assert path.read_bytes() == before
    one.put(seen({"user_id": "c"}))
    one.stop()
    assert [msgspec.json.decode(row.body or "")["user_id"] for row in rows(tmp_path)] == ["a", "c"]
    assert (one.written, one.failed) == (2, 3)
    (said,) = [record.getMessage() for record in caplog.records]
    assert str(tmp_path) in said and "File too large" in said


def test_where_not_even_the_half_line_can_be_taken_back_the_file_is_left_to_be_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = files(tmp_path)
    fill(one, 2)
    with monkeypatch.context() as patch, at_most(len(LINE) * 2 + 20):
        patch.setattr(capture_files.os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(5, "I/O error")))
        written, wrong = one.append([(NOON_US, LINE)])
        assert written == 0 and wrong is not None
    fill(one, 1)
    files(tmp_path).tidy()
    assert len(partials(tmp_path)) == 1, "the new one, which is being written"
    one.rotate()
    assert lines(tmp_path) == 3


def test_a_directory_that_cannot_be_written_costs_nothing_but_its_rows(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    one = Capture(tmp_path / "log" / "traffic", CaptureConfig(), 1000)
    one.put(seen({}))
    one.flush()
    (tmp_path / "log").unlink()
    one.put(seen({}))
    one.stop()
    assert (one.written, one.failed, lines(tmp_path / "log" / "traffic")) == (1, 1, 1)


@pytest.mark.parametrize("rest", [b"", b'{"at_us":1', b"x" * 200_000])
@pytest.mark.parametrize("count", [0, 1, 2000])
def test_the_file_of_a_dead_process_ends_after_its_last_whole_line(tmp_path: Path, rest: bytes, count: int) -> None:
    path = tmp_path / f"20261118T120000.000000Z-1-00{PARTIAL}"
    path.write_bytes(LINE * count + rest)
    settle(path)
    assert not path.exists() and lines(tmp_path) == count and len(wholes(tmp_path)) == min(count, 1)


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    one = files(tmp_path)
    fill(one, 1)
    files(tmp_path).tidy()
    fill(one, 1)
    one.rotate()
    assert lines(tmp_path) == 2


def test_while_another_process_tidies_writing_goes_on(tmp_path: Path) -> None:
    one = files(tmp_path)
    with (tmp_path / ".tidying").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fill(one, 3)
        assert one.untidy
    fill(one, 1)
    assert not one.untidy
    one.rotate()
    assert lines(tmp_path) == 4


WRITER = """
import sys, time
from pathlib import Path
from service.capture import Capture
from service.config import CaptureConfig
from service.http.tape import Seen
one = Capture(Path(sys.argv[1]), CaptureConfig(max_file_mb=0.02), 10000, hold_s=0.0, flush_s=0.005)
one.start()
number = 0
while True:
    now = time.perf_counter_ns()
    one.put(Seen(now, "POST", "/v1/rank", {}, b"%d" % number, "identity", False))
    number += 1
    if number % 100 == 0:
        print(one.written, flush=True)
        time.sleep(0.002)
"""


def test_kill_9_leaves_what_was_written_whole_and_the_next_process_ends_the_file(tmp_path: Path) -> None:
    """Two writers, one after the other killed in the middle of it; each one's rows are a whole beginning of its own."""
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            written = 0
            while written < 3000:
                written = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            process.wait()
        before = lines(tmp_path)
        (left,) = partials(tmp_path)
        whole_lines = left.read_bytes().rpartition(b"\n")[0].splitlines()
        assert [msgspec.json.decode(line, type=Row) for line in whole_lines]
        one = Capture(tmp_path, CaptureConfig(), 10_000, flush_s=0.0)
        one.start()
        one.stop()
        one.files.tidy()
        assert not partials(tmp_path) and lines(tmp_path) == before + len(whole_lines)
    by_process: dict[str, list[int]] = {}
    for path in wholes(tmp_path):
        found = [int(msgspec.json.decode(line, type=Row).body or "") for line in path.read_bytes().splitlines()]
        by_process.setdefault(path.name.split("-")[1], []).extend(found)
    assert len(by_process) == 2
    for numbers in by_process.values():
        assert numbers == list(range(len(numbers))) and len(numbers) >= 3000


def test_what_is_seen_is_small() -> None:
    """Of a request nothing is kept beyond what is written."""
    assert set(Seen.__struct_fields__) == {"at_ns", "method", "path", "headers", "body", "coding", "cut"}
