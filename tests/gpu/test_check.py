"""`make gpu-check` and the engine benchmark, as far as a machine without a GPU can tell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infra import gpu_check
from infra.bench_engine import goals

ROOT = Path(__file__).parents[2]

# A machine for GPUs has torch, numpy, numba, pyarrow, safetensors and pytest; of what else we use it has little.
BARE = """
import runpy, sys
for name in ("faiss", "feast", "aiohttp", "redis", "hiredis", "orjson", "uvloop", "duckdb", "yaml"):
    sys.modules[name] = None
sys.path[:0] = ["infra/bare", "."]
import msgspec
assert not hasattr(msgspec, "json")
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def bare(*command: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-c", BARE, *command]
    plain = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(run, cwd=ROOT, env=plain, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")) or torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line_and_that_is_no_failure(tmp_path: Path) -> None:
    make = ["make", "--no-print-directory", "gpu-check", f"PYTHON={sys.executable}", f"JSON={tmp_path / 'x.json'}"]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout == "gpu-check: there is no NVIDIA GPU here; nothing to check\n"
    assert not (tmp_path / "x.json").exists()


def test_a_gpu_that_torch_does_not_reach_is_a_failure_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "torch_reaches_one", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert gpu_check.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "torch" in line and "does not reach it" in line
    monkeypatch.setattr(torch, "__version__", "2.7.1+cu126")
    assert gpu_check.unfit() == "torch is 2.7.1+cu126; 2.8 or newer is needed"


@pytest.mark.slow
def test_the_benchmark_runs_where_there_is_torch_and_little_else(tmp_path: Path) -> None:
    """On the CPU, and small: every figure is there and is a number, and no goal counts as measured."""
    out = tmp_path / "deep" / "engine.json"
    done = bare(
        "infra.bench_engine", "--device", "cpu", "--items", "1500,1600", "--batches", "1,3", "--seconds", "0.05",
        "--json", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["device"] == "cpu" and result["torch"] == torch.__version__ and not result["cuda"]
    assert all(value > 0 for value in result["limits"].values())
    assert [one["items"] for one in result["catalogues"]] == [1500, 1600]
    for one in result["catalogues"]:
        assert [batch["batch"] for batch in one["batches"]] == [1, 3] and not one["cuda_graphs"]
        for batch in one["batches"]:
            assert 0 < batch["p50_ms"] <= batch["p99_ms"] and batch["requests_per_s"] > 0
            assert 0 < batch["share_of_copy_limit"] < 1 and 0 < batch["share_of_memory_limit"] < 1
        alone = one["half_precision_alone"]
        assert 0.99 < alone["recall"] <= 1 and 0.99 < alone["kendall"] <= 1 and alone["decided"] == 1
        assert [queue["outstanding"] for queue in one["through_the_queue"]] == [1, 64, 3]
    assert [goal["met"] for goal in result["goals"]] == [None] * 3


def test_the_gpu_tests_can_be_read_where_there_is_torch_and_little_else() -> None:
    done = bare("pytest", "-c", "infra/gpu_pytest.ini", "--rootdir", ".", "--noconftest", "-rs", *gpu_check.TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert torch.cuda.is_available() or "needs an NVIDIA GPU" in done.stdout


def test_a_goal_is_met_by_the_figures_of_its_own_catalogue() -> None:
    def figures(items: int, rate: float, p99: float) -> dict[str, object]:
        return {"items": items, "batches": [{"batch": 1, "p99_ms": p99, "requests_per_s": rate}]}

    said = goals({"catalogues": [figures(100_000, 60_000, 1.5), figures(10_000_000, 1, 2.5)]})
    assert [one["met"] for one in said] == [True, False, True]
    assert [one["figure"] for one in said] == [60_000, 1.5, 2.5]
