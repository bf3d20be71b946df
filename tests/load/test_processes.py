from __future__ import annotations

import os
import subprocess
import sys

import pytest

from load.errors import LoadError
from load.processes import machine, stolen, usage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
WAIT = "print(flush=True); input()"


def test_the_cpu_and_memory_of_children_count_whether_they_still_run_or_have_ended() -> None:
    """A parent that burns nothing: its ended child burned 0.3 s, its living one 0.3 s and holds 50 MB."""
    living = f"{BURN}\nheld = bytearray(b'x' * 50_000_000)\n{WAIT}"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n"
    parent += f"subprocess.run([sys.executable, '-c', {living!r}])"
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used = usage([process.pid])
        process.communicate("\n")
    assert used.processes == 2
    assert used.cpu >= 0.58
    assert used.rss > 50_000_000


def test_a_family_named_twice_counts_once() -> None:
    assert usage([os.getpid(), os.getpid()]).processes == usage([os.getpid()]).processes


def test_a_process_that_does_not_run_is_refused() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(LoadError, match=f"process {process.pid} does not run"):
        usage([process.pid])


def test_stolen_time_only_grows() -> None:
    first, second = stolen(), stolen()
    assert first is not None
    assert second is not None
    assert second >= first >= 0


def test_the_machine_line_names_cores_and_python() -> None:
    assert machine().startswith(f"{os.cpu_count()} x ")
    assert "Python 3." in machine()
