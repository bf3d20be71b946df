"""Jobs of real processes that are killed: what was done stays done, and nothing is done twice."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROWS = 3000
MIB = 1 << 20


@contextlib.contextmanager
def serving(shop: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`endcap serve` with two workers, and its address. Killed at the end, if it is there still."""
    process = subprocess.Popen(
        [sys.executable, "-m", "endcap_command", "serve", "--dir", str(shop), "--port", "0", "--workers", "2"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    children: list[psutil.Process] = []
    try:
        said = ""
        while "Ctrl-C ends it" not in said:
            line = process.stdout.readline()
            assert line, f"it ended before it served: {said}"
            said += line
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found
        children = psutil.Process(process.pid).children(recursive=True)
        yield process, found[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        psutil.wait_procs(children, timeout=20)


def get(url: str) -> Any:
    """The answer of a worker that has loaded: one that has just taken another's place says 503."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            assert error.code == 503, error
            time.sleep(0.05)


def upload(url: str, lines: Iterator[bytes]) -> Any:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    headers = {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
    connection.request("POST", "/v1/jobs?count=3", lines, headers, encode_chunked=True)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.status == 202, text
    return json.loads(text)


def until(what: Callable[[], Any], most_s: float = 60.0) -> Any:
    ends = time.monotonic() + most_s
    while not (found := what()):
        assert time.monotonic() < ends
        time.sleep(0.05)
    return found


def lock_holder(shop: Path) -> int:
    """The process that does the jobs, as the kernel has it."""
    inode = (shop / "jobs" / "lock").stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        if "->" not in line and line.split()[5].endswith(f":{inode}"):
            return int(line.split()[4])
    return 0


@pytest.mark.slow
def test_a_job_that_is_killed_twice_answers_each_user_once(deployment: Path, tmp_path: Path) -> None:
    """The worker that does it, then all of them: another goes on. And an upload takes no memory that grows with it."""
    shop = tmp_path / "shop"
    shutil.copytree(deployment, shop)
    users = [f"someone{n}" for n in range(ROWS)]
    with serving(shop) as (process, url):
        large(process, url)
        made = upload(url, (json.dumps({"user_id": user}).encode() + b"\n" for user in users))
        until(lambda: len(whole_lines(shop, made["id"])) > 200)
        first = lock_holder(shop)
        assert first in [one.pid for one in psutil.Process(process.pid).children(recursive=True)]
        os.kill(first, signal.SIGKILL)
        killed_at = len(whole_lines(shop, made["id"]))
        until(lambda: lock_holder(shop) not in (0, first))
        until(lambda: len(whole_lines(shop, made["id"])) > killed_at + 200)
    seen = whole_lines(shop, made["id"])
    assert killed_at < len(seen) < ROWS
    with serving(shop) as (_, url):
        until(lambda: get(f"{url}/v1/jobs/{made['id']}")["state"] == "succeeded")
        with urllib.request.urlopen(f"{url}/v1/jobs/{made['id']}/result", timeout=20) as answer:
            lines = answer.read().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(one["index"], one["user_id"]) for one in found] == list(enumerate(users))
    assert lines[: len(seen)] == seen
    assert all(len(one["answer"]["items"]) == 3 for one in found)


def whole_lines(shop: Path, job: str) -> list[bytes]:
    path = shop / "jobs" / job / "result.ndjson"
    text = path.read_bytes() if path.exists() else b""
    return text[: text.rfind(b"\n") + 1].splitlines()


def large(process: subprocess.Popen[str], url: str) -> None:
    """An upload of 100,000 lines and 60 MB, and the memory that it takes."""
    workers = psutil.Process(process.pid).children(recursive=True)
    before = {one.pid: one.memory_info().rss for one in workers}
    most = dict(before)
    row = json.dumps({"user_id": "someone", "exclude_item_ids": [f"item-{n:05}" for n in range(40)]}).encode() + b"\n"

    def rows() -> Iterator[bytes]:
        for _ in range(100):
            yield row * 1000
            for one in workers:
                most[one.pid] = max(most[one.pid], one.memory_info().rss)

    made = upload(url, rows())
    assert made["total"] == 100_000
    request = urllib.request.Request(f"{url}/v1/jobs/{made['id']}", method="DELETE")
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 202
    until(lambda: get(f"{url}/v1/jobs/{made['id']}")["state"] == "cancelled")
    grown = {pid: (rss - before[pid]) / MIB for pid, rss in most.items()}
    assert max(grown.values()) < 30, grown
