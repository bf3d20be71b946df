"""Waking up on time. An event loop's own timers are no good for that, and a sender that spins takes the server's core.

asyncio rounds its epoll timeout up to the next millisecond; uvloop's timers count whole milliseconds from a clock that
it reads once a turn. At 1,000 requests/s that is as long as the gap between two requests. Linux's timerfd is armed in
nanoseconds against CLOCK_MONOTONIC, is exempt from the 50 us timer slack, and makes a file descriptor readable, so the
loop sleeps in epoll until the very moment and burns nothing. Elsewhere the last 2 ms are spun, which costs a core.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from typing import Protocol

CLOCK_MONOTONIC = 1
TFD_TIMER_ABSTIME = 1
SPIN_S = 0.002


class Pacer(Protocol):
    """Waits for moments of `time.monotonic()`."""

    async def until(self, at: float) -> None:
        """Return at `at` (seconds), or at once when that is past. One waiter at a time."""

    def close(self) -> None:
        """Release the timer."""


class SpinPacer:
    """Sleeps until shortly before the moment, then turns the loop until it has come. Answers are still read."""

    async def until(self, at: float) -> None:
        """See Pacer."""
        while (left := at - time.monotonic()) > 0:  # noqa: ASYNC110 - a clock sets no Event
            await asyncio.sleep(left - SPIN_S if left > SPIN_S else 0)

    def close(self) -> None:
        """See Pacer."""


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class TimerfdPacer:
    """Linux's timerfd (man 2 timerfd_create), by ctypes because Python has it from 3.13 only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._fd = self._libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._fd, self._ring)

    async def until(self, at: float) -> None:
        """See Pacer."""
        if at <= time.monotonic():
            return
        seconds = int(at)
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(seconds, int((at - seconds) * 1e9)))
        self._waiter = self._loop.create_future()
        if self._libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._waiter

    def close(self) -> None:
        """See Pacer."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _ring(self) -> None:
        os.read(self._fd, 8)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def make_pacer(loop: asyncio.AbstractEventLoop) -> Pacer:
    """The best pacer of this system: timerfd on Linux, spinning elsewhere."""
    return TimerfdPacer(loop) if sys.platform == "linux" else SpinPacer()
