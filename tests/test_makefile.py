"""What `make demo` hands on to the command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("given", "handed"),
    [
        (["DIR=it's \"mine\" $$x"], ["--dir", "it's \"mine\" $x", "--port", "8080"]),
        (["DIR=a", "PORT=0", "DATA=it's.csv b.csv"],
         ["--dir", "a", "--port", "0", "--data", "it's.csv", "b.csv", "--format", "generic"]),
        (["FORMAT=online-retail"], ["--dir", "var/online-retail", "--port", "8080", "--format", "online-retail"]),
    ],
)  # fmt: skip
def test_make_demo_hands_on_what_it_is_given_whatever_characters_it_has(
    tmp_path: Path, given: list[str], handed: list[str]
) -> None:
    (tmp_path / "bin").mkdir()
    endcap = tmp_path / "bin" / "endcap"
    endcap.write_text('#!/bin/sh\nfor one in "$@"; do echo "$one"; done\n')
    endcap.chmod(0o755)
    (tmp_path / ".installed").touch()  # newer than what it is made of: nothing is installed
    make = ["make", "--no-print-directory", "-C", str(ROOT), "demo", f"VENV={tmp_path}", *given]
    done = subprocess.run(make, capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines() == ["demo", *handed], done.stderr
