"""A module of ours in a process of its own, for what a process that answers shoppers should not have to load.

What a library has loaded stays for as long as the process does, and is in each of the workers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def child(module: str, argument: str, stderr: int | None = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Starts `module` with one argument; what it prints and complains of can be read from it. `stderr`: None for this
    process's own, where nobody reads what it complains of until it ends: a pipe that is full would stop it."""
    where = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(  # noqa: S603 - this very Python, a module of ours
        [sys.executable, "-P", "-m", module, argument],  # -P: what lies in the current directory is not ours
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
        env={**os.environ, "PYTHONPATH": where},
    )  # fmt: skip


def last_line(complaints: bytes, code: int) -> str:
    """Why a child has said nothing that can be read."""
    lines = complaints.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else f"it ended with {code}"
