"""Tables that forks share: what they hold, who sees a change, and that they grow where they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ranking import shareable as module
from ranking.room import longer, room_for
from ranking.shareable import F32, mapped, shareable, shared


def numbered(out: F32) -> None:
    out[:] = np.arange(out.size, dtype=np.float32).reshape(out.shape)


@pytest.mark.parametrize(("rows", "width"), [(0, 4), (3, 0), (1, 1), (5000, 3)])
def test_it_holds_what_filled_it(rows: int, width: int) -> None:
    found = shareable(rows, width, numbered)
    np.testing.assert_array_equal(found, np.arange(rows * width, dtype=np.float32).reshape(rows, width))


@pytest.mark.parametrize("kind", [np.bool_, np.int32, np.int64, np.float64])
@pytest.mark.parametrize("shape", [(0,), (7,), (3000,), (5, 0), (40, 3)])
def test_a_copy_holds_what_the_array_holds(kind: type, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(kind)
    found = shared(array)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == kind and found.flags.writeable and found.flags.c_contiguous


FORKS = """
import os, sys
from pathlib import Path
import numpy as np
from ranking.room import longer
from ranking.shareable import mapped, shareable, shared
tables = [shareable(100, 8, lambda out: out.fill(24)), shared(np.full((100, 8), 24.0)), mapped(Path(sys.argv[1]))]

def worker(said, told, value):
    # Writes, says so, waits until the other has written, and looks.
    grown = []
    for table in tables:
        table[3] = value
        grown.append(longer(table, 5, value))
    os.write(said, b"x")
    os.read(told, 1)
    right = all((one[3] == value).all() and (one[100:] == value).all() and (one[:3] == 24).all() for one in grown)
    os._exit(0 if right else 1)

pipes = [os.pipe() for _ in range(4)]
pids = []
for number in (0, 1):
    if not (pid := os.fork()):
        worker(pipes[number][1], pipes[2 + number][0], -1.0 - number)
    pids.append(pid)
for number in (0, 1):
    os.read(pipes[number][0], 1)
for number in (0, 1):
    os.write(pipes[2 + number][1], b"x")
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
for table in tables:
    assert (table == 24).all() and (longer(table, 5, 7)[100:] == 7).all() and (table == 24).all()
print("unseen")
"""


def test_what_one_process_changes_or_adds_no_other_sees(tmp_path: Path) -> None:
    """Workers apply item changes each on their own, between two of their batches; nor does the file change."""
    path = tmp_path / "table.npy"
    np.save(path, np.full((100, 8), 24.0))
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FORKS, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "unseen" and path.read_bytes() == before


def test_new_rows_go_behind_those_that_there_are_without_a_copy() -> None:
    table = shareable(100, 4, numbered)
    grown = longer(table, 10, 7.0)
    assert grown.ctypes.data == table.ctypes.data and grown.shape == (110, 4)
    np.testing.assert_array_equal(grown[:100], table)
    assert (grown[100:] == 7.0).all()


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is no room behind a file")


@linux
@pytest.mark.parametrize("kind", [np.int8, np.int32, np.float64])
@pytest.mark.parametrize("shape", [(1,), (496,), (4096,), (513, 3), (992, 1), (1000, 16)])
def test_a_mapped_file_grows_in_place_until_its_room_is_full(
    tmp_path: Path, kind: type, shape: tuple[int, ...]
) -> None:
    """Wherever in a page its last row ends; a copy is the same and so is a row more."""
    array = np.random.default_rng(0).integers(-100, 100, shape).astype(kind)
    np.save(tmp_path / "table.npy", array)
    table = mapped(tmp_path / "table.npy")
    grown, copied = table, array
    for turn, count in enumerate((1, 7, room_for(len(array)) - len(array) - 8)):
        grown = longer(grown, count, turn)
        copied = np.concatenate([copied, np.full((count, *shape[1:]), turn, kind)])
        assert grown.ctypes.data == table.ctypes.data
        np.testing.assert_array_equal(grown, copied)
    beyond = longer(grown, 1, 9)
    assert beyond.ctypes.data != table.ctypes.data
    np.testing.assert_array_equal(beyond, np.concatenate([copied, np.full((1, *shape[1:]), 9, kind)]))
    np.testing.assert_array_equal(np.load(tmp_path / "table.npy"), array)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("array", [np.zeros((4, 0)), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(5.0)])
def test_what_cannot_have_room_behind_it_is_mapped_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, array: F32
) -> None:
    monkeypatch.setattr(module.sys, "platform", platform)
    np.save(tmp_path / "table.npy", array)
    table = mapped(tmp_path / "table.npy")
    np.testing.assert_array_equal(table, array)
    assert table.flags.writeable and len(longer(table, 2, 1)) == len(array) + 2


@linux
def test_a_file_that_has_become_shorter_is_refused_and_not_looked_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.npy"
    np.save(path, np.zeros(5000))
    load = np.load

    def cut(*given: object, **options: object) -> object:
        found = load(*given, **options)  # type: ignore[call-overload]
        with path.open("r+b") as file:
            file.truncate(4096)
        return found

    monkeypatch.setattr(module.np, "load", cut)
    with pytest.raises(OSError, match="has become shorter"):
        mapped(path)
