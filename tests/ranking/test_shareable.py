"""A table that forks share: what it holds, and who sees a change."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ranking.room import longer
from ranking.shareable import F32, shareable


def numbered(out: F32) -> None:
    out[:] = np.arange(out.size, dtype=np.float32).reshape(out.shape)


@pytest.mark.parametrize(("rows", "width"), [(0, 4), (3, 0), (1, 1), (5000, 3)])
def test_it_holds_what_filled_it(rows: int, width: int) -> None:
    found = shareable(rows, width, numbered)
    np.testing.assert_array_equal(found, np.arange(rows * width, dtype=np.float32).reshape(rows, width))


FORKS = """
import os
from ranking.shareable import shareable
table = shareable(100, 8, lambda out: out.fill(24))
child = os.fork()
if not child:
    table[3] = -1
    os._exit(int(table[3, 0] != -1))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(table[3, 0])
"""


def test_a_change_in_one_process_is_not_seen_in_the_other() -> None:
    """Workers apply item changes each on their own, between two of their batches."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "24.0"


def test_new_rows_go_behind_those_that_there_are_without_a_copy() -> None:
    table = shareable(100, 4, numbered)
    grown = longer(table, 10, 7.0)
    assert grown.ctypes.data == table.ctypes.data and grown.shape == (110, 4)
    np.testing.assert_array_equal(grown[:100], table)
    assert (grown[100:] == 7.0).all()
