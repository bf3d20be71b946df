"""Who stands between the `endcap` command and its workers.

The command's own process stays small: it waits, and passes a stop on. A child of it loads everything, forks the
process that then starts the workers and replaces them (`service.supervisor`), and ends. A fork has no page of a library
until it touches it, and the one that only waits touches few.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
import traceback
from collections.abc import Callable

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WATCHED = (*STOPS, signal.SIGCHLD)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def run_apart(load: Callable[[], Callable[[], None]], told: Callable[[Exception], int], grace_s: float) -> int:
    """Loads in a child, and runs what `load` returns in a fork of that until it ends or a signal stops it.

    Returns the exit code: of a loading that failed what `told` of its error, 128 and the signal of one that was stopped
    while it loaded, else 0 or 1. Who has not ended `grace_s` after a stop is killed.
    """
    adopts = prctl(PR_SET_CHILD_SUBREAPER, 1)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if not child:
        os.close(reading)
        in_child(parent, before, writing, load, told, adopts=adopts)
    os.close(writing)
    try:
        code, stopped = wait(child, grace_s)
        with os.fdopen(reading, "rb") as said:
            zygote = int(said.read() or 0)
        if not zygote and (code or adopts):
            return code or 128 + stopped
        if zygote:
            if stopped:
                os.kill(zygote, signal.SIGTERM)
            code, stopped = wait(zygote, grace_s, stopped)
        return 0 if stopped else code or 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_child(
    parent: int, mask: set[int], told_to: int, load: Callable[[], Callable[[], None]],
    told: Callable[[Exception], int], *, adopts: bool,
) -> None:  # fmt: skip
    """Loads, forks, ends. Never returns into the caller's frames."""
    code = 1
    try:
        die_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        run = load()
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        loader = os.getpid()
        if adopts and (forked := os.fork()):
            os.write(told_to, str(forked).encode())
            os._exit(0)
        os.close(told_to)
        while adopts and os.getppid() == loader:
            time.sleep(0.001)
        die_with(parent)
        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 - nothing may leave this process's frames
        try:
            code = told(error)
        except Exception:  # noqa: BLE001 - as above
            traceback.print_exc()
    finally:
        os._exit(code)


def wait(pid: int, grace_s: float, stopped: int = 0) -> tuple[int, int]:
    """Until it has ended: its exit code, and the signal that stopped us (0: none); it is told to stop then, too."""
    end = time.monotonic() + grace_s if stopped else float("inf")
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return (code if code >= 0 else 128 - code), stopped
        if time.monotonic() >= end:
            os.kill(pid, signal.SIGKILL)
            end = float("inf")
        caught = signal.sigtimedwait(WATCHED, 1.0)
        if caught is not None and caught.si_signo in STOPS:
            if not stopped:
                end = time.monotonic() + grace_s
            stopped = caught.si_signo
            os.kill(pid, signal.SIGTERM)


def prctl(option: int, value: int) -> bool:
    """Whether the kernel did as it was asked (Linux; elsewhere none does)."""
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def die_with(parent: int) -> None:
    """Has the kernel end this process when its parent ends, however that ends (Linux; elsewhere nothing does)."""
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(1)
