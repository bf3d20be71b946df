"""Recorded traffic: what is in it, what never is, and whose it is."""

from __future__ import annotations

import gzip
import json
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from service.capture import Capture
from service.capture_body import Sample
from service.capture_files import KEY, PARTIAL, WHOLE, secret
from service.config import CaptureConfig
from service.errors import CaptureError
from service.http.tape import Seen

MOST_BODY = 2000
JSON, LINES = {"Content-Type": "application/json"}, {"Content-Type": "application/x-ndjson; charset=utf-8"}
KEY_OF_TEST = b"k" * 32


class Row(Struct, forbid_unknown_fields=True):
    """The format, as docs/capture.md has it."""

    at_us: int
    method: str
    path: str
    headers: dict[str, str]
    body: str | None


def capture(directory: Path, **settings: Any) -> Capture:
    return Capture(directory, CaptureConfig(enabled=True, **settings), MOST_BODY)


def seen(body: Any = None, at_ns: int | None = None, **changes: Any) -> Seen:
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    at_ns = time.perf_counter_ns() if at_ns is None else at_ns
    one = Seen(at_ns, "POST", "/v1/recommendations", JSON, content, "identity", False)
    return msgspec.structs.replace(one, **changes)


def rows(directory: Path) -> list[Row]:
    """Of all whole files, in the order of their names."""
    return [
        msgspec.json.decode(line, type=Row) for path in wholes(directory) for line in path.read_bytes().splitlines()
    ]


def wholes(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob(f"*{WHOLE}") if path.name[0] != ".")


def partials(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{PARTIAL}"))


def recorded(directory: Path, *all_seen: Seen, **settings: Any) -> list[Row]:
    one = capture(directory, **settings)
    for each in all_seen:
        one.put(each)
    one.stop()
    return rows(directory)


def test_a_request_is_read_back_as_it_was_put(tmp_path: Path) -> None:
    text = 'ü\u2028\x00"\\ 🛒\r\n'
    (one,) = recorded(tmp_path, seen(text.encode(), headers={**JSON, "Endcap-After": text}, method="PUT"))
    assert (one.method, one.path, one.body) == ("PUT", "/v1/recommendations", text)
    assert one.headers == {**JSON, "Endcap-After": text}
    assert abs(one.at_us / 1e6 - time.time()) < 60


def test_load_reads_what_the_service_writes(tmp_path: Path) -> None:
    traffic_log = pytest.importorskip("load.traffic_log")
    expected = recorded(tmp_path, seen({"user_id": "u1"}), seen(None, method="GET"))
    (path,) = wholes(tmp_path)
    found = list(traffic_log.TrafficLog(path, strict=True))
    assert [(one.at_us, one.method, one.path, one.headers, one.body) for one in found] == [
        (one.at_us, one.method, one.path, one.headers, one.body) for one in expected
    ]


@pytest.mark.parametrize(
    ("put", "body"),
    [
        (seen(None), None),
        (seen(b"{"), "{"),
        (seen(b"\xff\xfe"), "xx"),
        (seen(gzip.compress(b'{"a":1}'), coding="gzip"), '{"a":1}'),
        (seen(zlib.compress(b'{"a":1}'), coding="deflate"), '{"a":1}'),
        (seen(zlib.compress(b'{"a":1}', wbits=-15), coding="deflate"), '{"a":1}'),
        (seen(b"no gzip", coding="gzip"), "x" * 7),
        (seen(gzip.compress(b'{"a":1}')[:-9], coding="gzip"), "x" * (len(gzip.compress(b'{"a":1}')) - 9)),
        (seen(b"abc", coding="br"), "xxx"),
        (seen(None, cut=True), "x" * (MOST_BODY + 1)),
        (seen(gzip.compress(b" " * 10_000_000), coding="gzip"), "x" * (MOST_BODY + 1)),
    ],
)
def test_a_body_becomes_text_that_is_answered_in_the_same_way(tmp_path: Path, put: Seen, body: str | None) -> None:
    (one,) = recorded(tmp_path, put)
    assert one.body == body


def test_ndjson_that_no_memory_holds_is_left_out_and_counted(tmp_path: Path) -> None:
    one = capture(tmp_path)
    one.put(seen(None, cut=True, headers=LINES))
    one.put(seen(b"{}\n{}\n", headers=LINES))
    one.stop()
    assert [row.body for row in rows(tmp_path)] == ["{}\n{}\n"] and (one.written, one.dropped) == (1, 1)


def test_rows_are_in_the_order_of_first_bytes_and_one_that_comes_too_late_is_moved(tmp_path: Path) -> None:
    one, now = capture(tmp_path), time.perf_counter_ns()
    for place in (3, 1, 2):
        one.put(seen({"place": place}, now + place * 1_000_000))
    one.flush()
    one.put(seen({"place": 0}, now))
    one.put(seen({"place": 4}, now + 4_000_000))
    one.stop()
    found = rows(tmp_path)
    assert [json.loads(row.body or "")["place"] for row in found] == [1, 2, 3, 0, 4]
    assert [row.at_us - found[0].at_us for row in found] == [0, 1000, 2000, 2000, 3000]


def test_the_thread_holds_a_request_until_those_before_it_are_known(tmp_path: Path) -> None:
    """What came within `hold_s` is not written yet, what came before is, without being asked."""
    late_in_an_hour = 1_764_000_000 // 3600 * 3600 + 3500.0  # or the file of what came before ends with its hour
    one = Capture(tmp_path, CaptureConfig(), MOST_BODY, hold_s=1000.0, flush_s=0.01, clock=lambda: late_in_an_hour)
    now = time.perf_counter_ns()
    one.start()
    one.put(seen({}, now))
    one.put(seen({}, now - 2_000_000_000_000))
    until = time.monotonic() + 20
    while not one.written:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert one.written == 1 and len(partials(tmp_path)) == 1
    one.stop()
    assert one.written == 2 and not partials(tmp_path) and not one.thread.is_alive()


def test_a_share_is_a_share_of_users_and_the_same_ones_everywhere(tmp_path: Path) -> None:
    """In every process, after every restart, in requests and in events; another key chooses others."""
    users = [f"u{number}" for number in range(4000)]
    bodies = [{"user_id": user, "count": 3} for user in users]
    first = {json.loads(row.body or "")["user_id"] for row in recorded(tmp_path, *map(seen, bodies), share=0.3)}
    assert abs(len(first) / len(users) - 0.3) < 0.04  # 5.5 standard deviations
    again = recorded(
        tmp_path,
        *(seen({"events": [{"user_id": user}, {"user_id": "other"}]}, path="/v1/events") for user in users),
        *(seen(b'{"user_id":"%s"}\n{"user_id":"other"}' % user.encode(), headers=LINES) for user in users),
        share=0.3,
    )[len(first) :]
    found = [row.body or "" for row in again]
    events = {json.loads(one)["events"][0]["user_id"] for one in found if "events" in one}
    assert events == first == {json.loads(one.splitlines()[0])["user_id"] for one in found if "events" not in one}
    ours, others = Sample(0.3, secret(tmp_path)), Sample(0.3, KEY_OF_TEST)
    assert {user for user in users if ours.has(json.dumps({"user_id": user}).encode())} == first
    assert {user for user in users if others.has(json.dumps({"user_id": user}).encode())} != first


@pytest.mark.parametrize("body", [b"{}", b"{", b'{"user_id": 5}', b"\xff", b"[" * 5000])
def test_what_has_no_user_is_drawn_by_request(body: bytes) -> None:
    sample = Sample(0.3, KEY_OF_TEST)
    assert abs(sum(sample.has(body) for _ in range(4000)) / 4000 - 0.3) < 0.04


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all_are_exact(tmp_path: Path, share: float) -> None:
    found = recorded(tmp_path, *(seen({"user_id": f"u{number}"}) for number in range(500)), share=share)
    assert len(found) == 500 * share


def test_nothing_of_a_hidden_value_is_anywhere_in_the_directory(tmp_path: Path) -> None:
    body = {"user_id": "shopper-7", "session": {"item_ids": ["secret-item"]}}
    recorded(tmp_path, seen(body), seen(json.dumps(body)[:-1].encode()), hash=["user_id"], drop=["session"])
    (key,) = [path for path in tmp_path.iterdir() if path.name == KEY]
    written = b"".join(path.read_bytes() for path in wholes(tmp_path))
    assert b"shopper-7" not in written and b"secret-item" not in written
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_bytes() not in written and key.read_bytes().hex().encode() not in written


def test_the_key_is_one_for_all_processes_and_outlives_them(tmp_path: Path) -> None:
    found: list[bytes] = []
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait()
        found.append(secret(tmp_path / "log"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(set(found)) == 1 and len(found) == 8 and len(found[0]) == 32
    assert secret(tmp_path / "log") == found[0]
    assert [path.name for path in (tmp_path / "log").iterdir()] == [KEY]


def test_a_damaged_key_is_named_and_nothing_is_written_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / KEY).write_bytes(b"short")
    with pytest.raises(CaptureError, match="has 5 bytes"):
        secret(tmp_path)
    one = capture(tmp_path, hash=["user_id"])
    for _ in range(3):
        one.put(seen({"user_id": "u"}))
    one.stop()
    assert (one.written, one.failed) == (0, 3) and not wholes(tmp_path)
    assert [KEY in record.getMessage() for record in caplog.records] == [True]


def test_a_full_queue_drops_and_counts_and_never_waits(tmp_path: Path) -> None:
    one = Capture(tmp_path, CaptureConfig(), MOST_BODY, max_queue=3)
    for _ in range(5):
        one.put(seen({}))
    assert one.dropped == 2
    one.flush()
    one.put(seen({}))
    one.stop()
    one.put(seen({}))
    assert (one.written, one.dropped) == (4, 3)


def test_bodies_that_wait_are_bounded_in_bytes_also_once_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.capture.MOST_BYTES", 5000)
    one = capture(tmp_path)
    for _ in range(10):
        one.put(seen(b" " * 1900))
    assert one.dropped == 7
    one.flush()
    for _ in range(10):
        one.put(seen(gzip.compress(b" " * 1900), coding="gzip"))
    one.stop()
    assert (one.written, one.dropped) == (2 + 2, 7 + 1 + 8)


def test_logs_of_several_workers_merge_into_one_in_order_of_time(tmp_path: Path) -> None:
    """By the command of docs/capture.md."""
    ones, now = [capture(tmp_path) for _ in range(3)], time.perf_counter_ns()
    for number in range(300):
        ones[number % 3].put(seen({"n": number}, now + number * 1000_000))
    for one in ones:
        one.origin_us = ones[0].origin_us
        one.stop()
    files = [str(path) for path in wholes(tmp_path)]
    merged = subprocess.run(
        ["sort", "-m", *files], env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, capture_output=True, check=True
    )
    found = [msgspec.json.decode(line, type=Row) for line in merged.stdout.splitlines()]
    assert len(files) == 3 and [json.loads(one.body or "")["n"] for one in found] == list(range(300))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [one for one in threading.enumerate() if one.name == "capture"]
