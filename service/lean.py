"""What a serving process does without, and what it gives back."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from importlib.abc import MetaPathFinder


def allocate_plainly() -> None:
    """Has Arrow take its memory from malloc, unless somebody chose: its own allocator keeps what loading has freed, and
    each forked worker with it. Before pyarrow is imported."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def keep_grpc_from_forks() -> None:
    """Has gRPC leave alone the forks in which we start other programs, unless somebody chose: it would hold up each of
    them for its own threads. Before grpc is imported."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def keep_pandas_out() -> None:
    """Has pyarrow look for pandas now and find none: it would import it to see whether a list is a Series."""
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

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
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
