"""`endcap bench stages` on a real deployment, and `endcap bundle pack` as a user's mistake meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli import main
from service.commands import bench


def test_bench_stages_shows_every_stage_of_the_deployments_own_path(
    deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[bench.Run] = []
    monkeypatch.setattr(bench, "show", runs.append)
    bench.stages(deployment, "home", 5, 30, [1, 4])
    assert [run.concurrency for run in runs] == [1, 4]
    for run in runs:
        assert {"decode", "features", "engine", "encode", "retrieve", "score", "select", "all"} <= set(run.stages)
        assert all(len(seconds) == 30 for seconds in run.stages.values()) and run.cpu_s > 0


def test_a_pack_file_with_a_mistake_is_one_line_and_exit_2(
    deployment: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pack.toml").write_text("name = 7\n")
    assert main(["bundle", "pack", str(tmp_path / "pack.toml"), "--dir", str(deployment)]) == 2
    assert main(["bundle", "pack", str(tmp_path / "none.toml"), "--dir", str(deployment)]) == 2
