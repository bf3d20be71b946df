"""The embedded Valkey: who starts it, who ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import ServiceError
from service.valkey import EmbeddedValkey, free_port, taken


def test_the_last_user_ends_it_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: nothing asks an ended server again, as redis-py would for up to eleven seconds."""
    monkeypatch.setattr("redis.retry.sleep", lambda seconds: pytest.fail(f"it waits {seconds} s to ask again"))
    port = free_port()
    first, second = (EmbeddedValkey(tmp_path, "127.0.0.1", port) for _ in range(2))
    first.start()
    second.start()
    first.stop()
    assert second.answers(), "ended under its second user"
    second.stop()
    assert not taken("127.0.0.1", port)
    assert first.process is not None and first.process.wait(5) == 0


def test_one_left_behind_by_a_killed_command_is_used_and_then_ended(tmp_path: Path) -> None:
    port = free_port()
    code = (
        "import sys, time; from pathlib import Path; from service.valkey import EmbeddedValkey\n"
        f"EmbeddedValkey(Path({str(tmp_path)!r}), '127.0.0.1', {port}).start(); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == b"up\n"
        os.kill(killed.pid, signal.SIGKILL)
    one = EmbeddedValkey(tmp_path, "127.0.0.1", port)
    assert one.answers()
    one.start()
    assert one.process is None
    one.stop()
    assert not one.answers() and not taken("127.0.0.1", port)


def test_another_server_on_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    port = free_port()
    other = EmbeddedValkey(tmp_path / "other", "127.0.0.1", port)
    other.start()
    try:
        with pytest.raises(ServiceError, match="did not start"):
            EmbeddedValkey(tmp_path / "ours", "127.0.0.1", port).start()
        assert other.answers()
    finally:
        other.stop()


def test_a_host_that_is_none_is_one_line() -> None:
    with pytest.raises(ServiceError, match="no-such-host"):
        taken("no-such-host.invalid", 80)
