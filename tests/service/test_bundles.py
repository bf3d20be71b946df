"""`endcap bundle check`, `show` and `diff`: what they print, and with which exit code they end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from ranking.schema import Dense
from service import cli
from service.commands import bundle_show
from service.console import console, errors
from tests.ranking.factory import make_bundle, make_trained
from tests.service.conftest import save_untrained

FIRST, _, *LATER = make_trained(40).user.dense


@pytest.fixture(autouse=True)
def no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` would set the test run's own handlers."""
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)


def said(*argv: object, code: int = 0) -> str:
    """What the command prints; asserts its exit code, and silence on stderr."""
    with console.capture() as printed, errors.capture() as complained:
        assert cli.main([str(one) for one in ("bundle", *argv)]) == code
    assert not complained.get()
    return printed.get()


def refused(*argv: object) -> str:
    """What the command says on stderr: one line, and exit code 2."""
    with console.capture(), errors.capture() as complained:
        assert cli.main([str(one) for one in ("bundle", *argv)]) == 2
    line = complained.get()
    assert line.count("\n") == 1 and line.startswith("endcap: "), line
    return line


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "models", 40)


def test_check_tells_each_check_that_was_passed(bundle: Path, tmp_path: Path) -> None:
    lines = said("check", bundle, "--dir", tmp_path).splitlines()
    assert [one.split(":")[0] for one in lines] == [
        "ok  manifest.json", "ok  files", "ok  items.parquet", "ok  embeddings.npy", "ok  index.faiss",
        "ok  neighbors.npy", "ok  user_tower.safetensors", "ok  ranker.safetensors", "ok  smoke batch",
        "ok  Feast registry",
    ]  # fmt: skip
    assert "of unit length" in lines[3] and "not asked" in lines[-1]


def test_check_holds_a_version_of_a_deployment_against_its_registry(deployment: Path) -> None:
    last = said("check", "default@1", "--dir", deployment).splitlines()[-1]
    assert last == "ok  Feast registry: 20 features of default, each of its type and max age"


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "a view that Feast does not have": (
        {"dense": (FIRST, Dense("user_profil:orders", "Int64"), *LATER)},
        "user_profil:orders: Feast has no such view, only",
    ),
    "a feature of another type": (
        {"dense": (FIRST, Dense("user_profile:orders", "String"), *LATER)},
        "Feast has Int64",
    ),
    "another max age": ({"max_age_s": {"user_activity": 60.0}}, "trained with max age 60.0 s, Feast's ttl is 2592"),
    "a service that Feast does not have": ({"feature_service": "gone"}, "no feature service 'gone'; there are:"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_check_refuses_what_does_not_fit_the_registry(deployment: Path, tmp_path: Path, case: str) -> None:
    changes, text = OTHERS[case]
    path = save_untrained(tmp_path, **changes)
    line = refused("check", path, "--dir", deployment)
    assert f"{path}: does not fit the Feast registry: " in line and text in line


def test_check_of_a_damaged_bundle_is_one_line_also_as_json(bundle: Path, tmp_path: Path) -> None:
    (bundle / "neighbors.npy").unlink()
    assert "neighbors.npy: is missing" in refused("check", bundle, "--dir", tmp_path)
    with console.capture() as printed, errors.capture():
        assert cli.main(["bundle", "check", str(bundle), "--json"]) == 2
    found = msgspec.json.decode(printed.get())
    assert not found["ok"] and "neighbors.npy: is missing" in found["error"]
    assert [one["check"] for one in found["passed"]] == ["manifest.json"]


def test_show_reads_well_in_eighty_columns(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = Console(width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(bundle_show, "console", narrow)
    with narrow.capture() as printed:
        cli.main(["bundle", "show", str(bundle)])
    text = printed.get()
    assert max(map(len, text.splitlines())) <= 80
    for row in ("user_activity:purchases_30d  (log1p(x) - 1) * 0.8", "user_tower.safetensors", "recall@10", "1h"):
        assert row in text, row  # none is folded


def test_show_as_json_is_the_manifest_and_what_the_heads_of_its_files_say(bundle: Path) -> None:
    found = msgspec.json.decode(said("show", bundle, "--json"))
    assert (found["items"], found["search"], found["manifest"]["version"]) == (40, "our scan", "1")
    tower = make_trained(40).tower.state_dict()
    assert found["parameters"]["user_tower"] == sum(one.numel() for one in tower.values())


def test_a_damaged_bundle_is_shown_where_its_manifest_is_whole(bundle: Path) -> None:
    for one in bundle.iterdir():
        if one.name != "manifest.json":
            one.write_bytes(b"x")
    text = said("show", bundle)
    assert "unknown: embeddings.npy cannot be read" in text and "user_profile:orders" in text


def test_show_loads_no_torch(bundle: Path) -> None:
    script = f"""
import sys
from service import cli
assert cli.main(["bundle", "show", {str(bundle)!r}]) == 0
assert cli.main(["bundle", "diff", {str(bundle)!r}, {str(bundle)!r}]) == 0
print([name for name in ("torch", "faiss", "feast", "numba", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_name_with_control_letters_gives_a_terminal_no_orders(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"untrained"', b'"\\u001b[31m[red]"'))
    assert "�[31m[red]" in said("show", bundle)


def test_diff_ends_with_0_where_two_are_the_same_and_1_where_they_differ(bundle: Path) -> None:
    again, other = make_bundle(bundle.parents[1], 40), make_bundle(bundle.parents[1], 60, factory="IVF2,Flat")
    text = said("diff", bundle, again)
    assert "the same: user features, item features" in text and "factory" not in text
    text = said("diff", bundle, other, code=1)
    assert "IVF2,Flat" in text and "20 only in b" in text and "i00040, i00041" in text
    assert text.splitlines()[-1].startswith("the same: user features, item features, inputs, max age")


def test_diff_as_json_names_what_differs(bundle: Path) -> None:
    other = make_bundle(bundle.parents[1], 60)
    found = msgspec.json.decode(said("diff", bundle, other, "--json", code=1))
    assert found["differs"] and found["items"]["added"] == 20 and set(found["sections"]) == {"files"}
    assert (found["a"]["version"], found["b"]["version"]) == ("1", "2")


def test_diff_of_two_versions_by_name(deployment: Path) -> None:
    assert "default@1" in said("diff", "default@1", "default", "--dir", deployment, code=1)


@pytest.mark.parametrize("action", ["check", "show", "diff"])
def test_a_bundle_that_there_is_not_is_one_line(deployment: Path, tmp_path: Path, action: str) -> None:
    more = ["default@1"] if action == "diff" else []
    assert "no such version; there are: 1, 2" in refused(action, *more, "default@7", "--dir", deployment)
    assert "there are: none" in refused(action, *more, "other", "--dir", deployment)
    assert "no such directory" in refused(action, *more, tmp_path / "none", "--dir", deployment)
    assert "endcap.toml: no such file" in refused(action, "default@1", *more, "--dir", tmp_path)
    (tmp_path / "1").mkdir()
    assert "manifest.json: no such file" in refused(action, tmp_path / "1", *([tmp_path / "1"] if more else []))
