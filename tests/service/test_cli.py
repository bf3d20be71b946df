"""The `endcap` command itself: what it says, and with which exit code it ends."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import duckdb
import pytest

from features.errors import InputError
from features.store import open_store
from service import cli
from service.commands import data
from service.console import console, errors
from service.errors import ServiceError


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """`main` sets signal handlers, which are the test run's own again afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
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


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"endcap {version('endcap')}\n"


def refused(*argv: str, code: int = 2) -> str:
    """What the command says on stderr; asserts the exit code and that it is one line."""
    with console.capture(), errors.capture() as captured:
        assert cli.main(argv) == code
    said = captured.get()
    assert said.count("\n") == 1 and said.startswith("endcap: "), said
    return said


def entries(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


def test_commands_without_a_deployment_say_which_command_makes_one(tmp_path: Path) -> None:
    for command in ("generate", "materialize", "train", "evaluate", "serve"):
        assert "endcap init" in refused(command, "--dir", str(tmp_path))
    new = str(tmp_path / "new")
    with console.capture():
        assert cli.main(["init", new]) == 0
    assert "is there already" in refused("init", new)
    assert "events.parquet" in refused("materialize", "--dir", new)


@pytest.mark.parametrize("place", ["file", "file/below", "file/below/deeper"])
def test_init_where_no_directory_can_be_is_one_line_that_names_the_place(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / "file") in refused("init", str(tmp_path / place))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--project", "my-shop"), ("--redis", "foo"), ("--redis", "host:99999"), ("--redis", "host:0")],
)
def test_init_refused_for_an_option_leaves_nothing_behind(tmp_path: Path, option: str, value: str) -> None:
    assert value in refused("init", str(tmp_path / "shop"), option, value)
    assert not entries(tmp_path)


def test_demo_refused_before_it_begins_leaves_nothing_behind(tmp_path: Path) -> None:
    """A file that is not there, a port in use, a format of nothing."""
    directory, missing = str(tmp_path / "shop"), str(tmp_path / "none.csv")
    assert missing in refused("demo", "--dir", directory, "--port", "0", "--data", missing)
    assert "--data" in refused("demo", "--dir", directory, "--port", "0", "--format", "online-retail")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port} is in use" in refused("demo", "--dir", directory, "--port", port, code=1)
    assert not entries(tmp_path)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A deployment as `init` makes it."""
    data.init(tmp_path / "shop", "shop", "127.0.0.1:1")
    return tmp_path / "shop"


def test_a_settings_file_that_is_a_directory_is_one_line(here: Path) -> None:
    (here / "endcap.toml").unlink()
    (here / "endcap.toml").mkdir()
    assert "endcap.toml: Is a directory" in refused("train", "--dir", str(here))


def test_a_feature_store_file_that_is_no_text_is_one_line(here: Path) -> None:
    (here / "feature_repo" / "feature_store.yaml").write_bytes(b"project: \xff")
    assert "feature_store.yaml" in refused("ingest", "--dir", str(here))


def test_a_damaged_registry_is_one_line_that_names_it(here: Path) -> None:
    registry = here / "feature_repo" / "registry.db"
    registry.write_bytes(b"\xff" * 300)
    with pytest.raises(InputError, match=f"{registry}: Feast's registry is damaged"):
        open_store(here / "feature_repo")


def test_evaluate_refuses_a_directory_for_its_figures_before_it_trains(here: Path) -> None:
    before = entries(here)
    assert f"{here}: is a directory" in refused("evaluate", "--dir", str(here), "--json", str(here))
    assert entries(here) == before


def test_a_disk_that_takes_no_more_is_one_line_that_names_the_file_and_leaves_the_old_one(here: Path) -> None:
    size = ["generate", "--dir", str(here), "--items", "40", "--users", "5", "--events"]
    with console.capture():
        assert cli.main([*size, "10"]) == 0
    before = {path: path.read_bytes() for path in (here / "data").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        said = refused(*size, "20000", code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{here / 'data' / 'events.parquet'}: cannot be written" in said
    assert {path: path.read_bytes() for path in (here / "data").iterdir()} == before


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
