"""What a server's processes cost, from Linux's /proc (man 5 proc), and what machine this is."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from load.errors import LoadError

PROC = Path("/proc")


class Usage(NamedTuple):
    """`cpu` seconds spent so far, in steps of a clock tick (10 ms); `rss` bytes resident, shared pages in each."""

    cpu: float
    rss: int
    processes: int


def usage(pids: Iterable[int]) -> Usage:
    """What processes and all that descend from them have used. Raises LoadError when one of `pids` is gone.

    Ended children count as long as their parent has waited for them: their CPU time is then its own `cutime`.
    """
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    ticks = pages = 0
    members: set[int] = set()
    for pid in pids:
        if not (PROC / str(pid)).is_dir():
            raise LoadError(f"process {pid} does not run")
        members |= _family(pid)
    for member in members:
        fields = _stat(member)
        if fields is not None:
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
            pages += int(fields[21])
    return Usage(ticks / tick, pages * page, len(members))


def stolen() -> float | None:
    """Seconds, over all cores since the machine began, that its hypervisor gave to others; None if it does not say."""
    path = PROC / "stat"
    if not path.exists():
        return None
    total = path.read_text().splitlines()[0].split()  # cpu user nice system idle iowait irq softirq steal ...
    return int(total[8]) / os.sysconf("SC_CLK_TCK")


def machine() -> str:
    """One line on the hardware and software that a figure comes from."""
    model = "unknown CPU"
    cpuinfo = PROC / "cpuinfo"
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else platform.machine()
    return f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def _family(pid: int) -> set[int]:
    """The process and its living descendants."""
    found, open_ = {pid}, [pid]
    while open_:
        for task in (PROC / str(open_.pop()) / "task").glob("*/children"):
            children = {int(child) for child in _read(task).split()} - found
            found |= children
            open_.extend(children)
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on, or None for a process that has ended in the meantime.

    The second field is the program's name in brackets, and may itself hold spaces and brackets.
    """
    text = _read(PROC / str(pid) / "stat")
    return text.rpartition(")")[2].split() if text else None


def _read(path: Path) -> str:
    """A file of a process, or nothing when that process has just ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
