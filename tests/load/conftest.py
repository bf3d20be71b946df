"""A real server for the load tests, and short ways to play traffic against it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Stub:
    pid: int
    port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture(scope="session")
def stub() -> Iterator[Stub]:
    """The server of tests/load/stub.py, in its own process."""
    with subprocess.Popen([sys.executable, "-m", "tests.load.stub"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Stub(process.pid, int(process.stdout.readline()))
        process.terminate()
        process.wait(timeout=10)
