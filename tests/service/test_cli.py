"""The `endcap` command itself: what it says, and with which exit code it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import duckdb
import pytest

from service import cli
from service.errors import ServiceError


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """`main` sets signal handlers, which are the test run's own again afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_duckdb_runs_ends_the_command_like_any_other(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    def slow(_: object) -> None:
        threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
        with duckdb.connect() as connection:
            connection.sql("SELECT sum(a.range * b.range) FROM range(3000000) a, range(3000000) b").fetchall()

    monkeypatch.setattr(cli, "run", slow)
    assert cli.main(["materialize"]) == code


def test_an_error_that_nobody_foresaw_keeps_its_traceback_and_one_that_somebody_did_is_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bug(_: object) -> None:
        raise ZeroDivisionError

    def foreseen(_: object) -> None:
        raise ServiceError("port 1 is in use")

    monkeypatch.setattr(cli, "run", bug)
    with pytest.raises(ZeroDivisionError):
        cli.main(["materialize"])
    monkeypatch.setattr(cli, "run", foreseen)
    assert cli.main(["materialize"]) == 1
