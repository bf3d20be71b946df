"""What a serving process does without, and what it gives back."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from importlib.abc import MetaPathFinder

import pyarrow as pa

M_ARENA_MAX = -8


def slim() -> None:
    """For a process that will serve, before it loads anything: one heap, Arrow's memory in it too, no pandas.

    Arrow's own allocator keeps what it has freed, as glibc's heap of each thread does.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    pa.set_memory_pool(pa.system_memory_pool())
    keep_pandas_out()


def keep_pandas_out() -> None:
    """Has pyarrow look for pandas now and find none: it would import it to see whether a list is a Series."""
    if "pandas" in sys.modules:
        return
    hidden = Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(hidden)


class Hidden(MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not for this process", name=name)


def give_back() -> None:
    """Hands freed memory to the system: loading needs twice of what serving does. (glibc's; elsewhere only Arrow's.)"""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
