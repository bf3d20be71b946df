"""`endcap` is two rooms behind one name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from endcap_command import LOAD, main
from load.cli import COMMANDS

ROOMS = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def modules_after(*arguments: str) -> set[str]:
    """The top-level modules that a process has imported once it has run this command line."""
    code = (
        f"import contextlib, endcap_command\nwith contextlib.suppress(SystemExit): endcap_command.main({arguments})\n"
    )
    done = subprocess.run([sys.executable, "-c", code + ROOMS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", LOAD)
def test_a_load_command_imports_nothing_of_the_service(command: str) -> None:
    found = modules_after(command, "--no-such-option")
    assert "load" in found
    assert not found & {"service", "features", "ranking", "duckdb", "pyarrow", "torch"}


def test_a_command_of_the_service_imports_nothing_of_load(tmp_path: Path) -> None:
    found = modules_after("init", str(tmp_path / "shop"))
    assert "service" in found
    assert "load" not in found


def test_help_lists_the_commands_of_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "usage: endcap" in said
    for name in ("serve", "demo", *LOAD):
        assert f"\n    {name} " in said


def test_every_load_command_but_open_is_reached() -> None:
    assert set(COMMANDS) - {"open"} <= set(LOAD)


def test_what_load_refuses_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["traffic", "--no-such-option"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("load: ")
    assert said.count("\n") == 1
