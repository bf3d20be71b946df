"""The `endcap` command as its users run it: real processes, a small shop, from nothing to answers and back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

SMALL = ["--items", "400", "--users", "150", "--events", "8000", "--days", "30"]
TRAIN = "\n[train]\nmax_examples = 4000\nepochs = 2\ndimension = 16\n"


def endcap(*arguments: str, status: int = 0) -> tuple[str, str]:
    """Runs a command to its end; asserts its exit code and that a failure is one line."""
    done = subprocess.run(
        [sys.executable, "-m", "endcap_command", *arguments], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == status, done.stdout + done.stderr
    if status:
        assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that serves: the process and its address, once it has said it. Ended with SIGTERM, and cleanly."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "endcap_command", *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    try:
        said = ""
        while "Ctrl-C ends it" not in said:
            line = process.stdout.readline()
            assert line, f"it ended before it served: {said}"
            said += line
        match = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert match
        yield process, match[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0


def ask(url: str, path: str = "/v1/recommendations", **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: dict[str, Any] = json.loads(response.read())
    return answer


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """init, generate, materialize, train: each says what it read and wrote."""
    directory = tmp_path_factory.mktemp("e2e") / "shop"
    endcap("init", str(directory))
    with (directory / "endcap.toml").open("a") as config:
        config.write(TRAIN)
    said, _ = endcap("generate", "--dir", str(directory), *SMALL)
    assert "wrote: events 8,000, items 400, users 150" in said
    said, _ = endcap("materialize", "--dir", str(directory))
    assert "user_recent 150" in said and "item_stats 400" in said
    said, _ = endcap("train", "--dir", str(directory))
    assert "Recall@10" in said and "co-visitation" in said and "models/default/1" in said.replace("\n", "")
    return directory


def test_serve_answers_what_was_trained_and_ends_without_a_trace(shop: Path) -> None:
    with running("serve", "--dir", str(shop), "--port", "0") as (process, url):
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("valkey" in child.name() for child in children)
        user = json.loads((shop / "data" / "source.json").read_text())
        assert user["format"] == "generated"
        answer = ask(url, user_id=first_user(shop), count=8, explain=True)
        assert len(answer["items"]) == 8 and answer["degraded"] == []
        assert all(item["explain"]["title"] for item in answer["items"])
        assert {view["status"] for view in answer["features"].values()} <= {"present", "outside_max_age"}
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, f"left behind: {alive}"


def test_demo_reuses_what_is_there_and_shows_a_first_answer_with_titles(shop: Path) -> None:
    """No step of the first run is repeated; the curl line that it prints works."""
    before = {entry: entry.stat().st_mtime_ns for entry in (shop / "models").rglob("*") if entry.is_file()}
    process = subprocess.Popen(
        [sys.executable, "-m", "endcap_command", "demo", "--dir", str(shop), "--port", "0"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    until = time.monotonic() + 90
    while "should see now" not in said and time.monotonic() < until:
        said += process.stdout.readline()
    curl = re.search(r"curl -s (\S+) -H '([^']+)' -d '([^']+)'", said)
    assert curl, said
    assert said.count("Reusing") == 3, said
    answer = subprocess.run(["curl", "-s", curl[1], "-H", curl[2], "-d", curl[3]], capture_output=True, timeout=30)
    assert len(json.loads(answer.stdout)["items"]) == 8
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C in a terminal does
    with process.stdout:  # not communicate(): it forgets what readline has buffered
        said += process.stdout.read()
    assert process.wait(30) == 0
    assert len([line for line in said.splitlines() if re.match(r" +-?\d+\.\d+  ", line)]) == 8, said
    assert before == {entry: entry.stat().st_mtime_ns for entry in (shop / "models").rglob("*") if entry.is_file()}


@pytest.mark.slow
def test_demo_makes_again_what_a_broken_run_or_another_shop_left(shop: Path, tmp_path: Path) -> None:
    """Features that were not all loaded, and a model of another shop, are not taken for this one's."""
    directory = tmp_path / "copy"
    shutil.copytree(shop, directory, ignore=shutil.ignore_patterns("*.lock"))
    (directory / "data" / "features" / "materialized.json").unlink()
    endcap("generate", "--dir", str(directory), *SMALL, "--seed", "8")
    process = subprocess.Popen(
        [sys.executable, "-m", "endcap_command", "demo", "--dir", str(directory), "--port", "0"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    while "Ctrl-C ends it" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGTERM)
    with process.stdout:
        process.stdout.read()
    assert process.wait(30) == 0
    assert said.count("Reusing") == 1 and "models/default/2" in said.replace("\n", ""), said


@pytest.mark.slow
def test_evaluate_writes_its_figures(shop: Path) -> None:
    endcap("evaluate", "--dir", str(shop), "--json", str(shop / "figures.json"))
    figures = json.loads((shop / "figures.json").read_text())
    assert set(figures["scores"]["all"]) == {"model", "retrieval alone", "popularity", "co-visitation"}
    assert all(0 <= one["recall_10"] <= one["recall_50"] <= 1 for one in figures["scores"]["all"].values())


@pytest.mark.parametrize("name", ["index.faiss"])
def test_serve_refuses_a_bundle_with_a_flipped_byte_and_names_it(shop: Path, name: str) -> None:
    path = shop / "models" / "default" / "1" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    try:
        _, error = endcap("serve", "--dir", str(shop), "--port", "0", status=1)
    finally:
        path.write_bytes(whole)
    assert name in error and "SHA-256" in error


def test_serve_refuses_a_model_that_does_not_fit_feast_any_more(shop: Path) -> None:
    """A renamed feature, a changed type, a changed TTL: each is named."""
    definitions = shop / "feature_repo" / "definitions.py"
    text = definitions.read_text()
    changed = text.replace('name="orders", dtype=Int64', 'name="orders", dtype=Float32')
    changed = changed.replace("ttl=timedelta(days=30)", "ttl=timedelta(days=3)")
    changed = changed.replace('Field(name="country", dtype=String)', 'Field(name="land", dtype=String)')
    definitions.write_text(changed)
    try:
        apply_repo(shop)
        _, error = endcap("serve", "--dir", str(shop), "--port", "0", status=1)
    finally:
        definitions.write_text(text)
        apply_repo(shop)
    for said in ("user_profile:orders: trained on Int64, Feast has Float32", "user_profile:country", "user_activity: "):
        assert said in error, error


def apply_repo(shop: Path) -> None:
    from features.store import apply

    apply(shop / "feature_repo")


def test_a_port_in_use_is_one_line(shop: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        _, error = endcap("demo", "--dir", str(shop), "--port", port, status=1)
        assert f"port {port} is in use" in error
        _, error = endcap("serve", "--dir", str(shop), "--port", port, status=1)
        assert port in error and "in use" in error


def test_bad_input_is_exit_code_2_one_line_and_changes_nothing(shop: Path, tmp_path: Path) -> None:
    before = {entry: entry.read_bytes() for entry in (shop / "data").iterdir() if entry.is_file()}
    events, items = tmp_path / "events.csv", tmp_path / "items.csv"
    items.write_text("item_id,title\na,A thing\n")
    events.write_text("user_id,item_id,event,timestamp\nu,a,view,2026-01-01\nu,a,view,yesterday\n")
    _, error = endcap("import", "--dir", str(shop), str(events), str(items), status=2)
    assert "events.csv" in error and "row 3" in error and "timestamp" in error and "yesterday" in error
    _, error = endcap("import", "--dir", str(shop), str(tmp_path / "none.csv"), status=2)
    assert "none.csv" in error
    assert before == {entry: entry.read_bytes() for entry in (shop / "data").iterdir() if entry.is_file()}


def first_user(shop: Path) -> str:
    import pyarrow.parquet as pq

    return str(pq.read_table(shop / "data" / "events.parquet")["user_id"][-1].as_py())
