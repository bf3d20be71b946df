"""The disk, from an event loop: even a small write may wait for a journal that somebody else keeps busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def on_disk(what: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Does it in a thread, and to its end: who is cancelled meanwhile leaves only then, as what it works on is closed
    afterwards."""
    task = asyncio.ensure_future(asyncio.to_thread(what, *args, **named))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
