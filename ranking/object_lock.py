"""One of several machines at a time: an object that is made only where there is none.

A holder that died leaves its object behind, which another takes over once it has expired: whoever makes the object
TAKEN of that very holder, and still finds it holding then, is the only one to. A holder that is slower than that finds
it out before it writes.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from ranking.errors import RegistryBusy, RegistryError

EXPIRES_S = 60.0
"""How long a lock holds, by the clocks of who takes it and of who wants it."""
MARGIN_S = 15.0
"""A holder that has less than this left writes no more."""
REFUSED = (errno.EEXIST, errno.EINVAL, errno.EBUSY)
"""What clients make of a store's refusal to make an object that is there (HTTP 412), or is being made (409)."""


class Holder(msgspec.Struct, frozen=True):
    """`at` in seconds since the epoch, by the holder's clock."""

    token: str
    by: str
    at: float


class Lock:
    """The lock at `path` of a file system of fsspec's. `clock` gives seconds since the epoch."""

    def __init__(self, fs: Any, path: str, clock: Callable[[], float]) -> None:
        self.fs, self.path, self.clock = fs, path, clock
        self.own = Holder("", "", 0.0)

    def take(self) -> None:
        """Raises RegistryBusy where another holds it, RegistryError where the store cannot refuse a second one."""
        self.own = Holder(secrets.token_hex(8), f"{socket.gethostname()}:{os.getpid()}", self.clock())
        content = msgspec.json.encode(self.own)
        if create(self.fs, self.path, content):
            if create(self.fs, self.path, content):
                self.fs.rm_file(self.path)
                raise RegistryError(
                    f"{self.path}: this store overwrites what it was to make only where there is nothing; "
                    "two changes at once could not be told apart, so none is made"
                )
            return
        held = self.holder()
        if held is None or self.clock() - held.at < EXPIRES_S:
            said = "" if held is None else f" (by {held.by} since {datetime.fromtimestamp(held.at, UTC):%H:%M:%S} UTC)"
            raise RegistryBusy(f"{self.path}: another change is under way{said}; nothing was done")
        self.take_over(held, content)

    def take_over(self, held: Holder, content: bytes) -> None:
        """Of a holder that is gone."""
        taken = f"{self.path}.{held.token}"
        if not create(self.fs, taken, content):
            raise RegistryBusy(
                f"{self.path}: another is taking over what {held.by} left behind; nothing was done. If nobody is, "
                f"delete {taken}"
            )
        try:
            if self.holder() != held:
                raise RegistryBusy(f"{self.path}: another change is under way; nothing was done")
            self.fs.pipe_file(self.path, content)
        finally:
            self.fs.rm_file(taken)

    def check(self) -> None:
        """Raises RegistryBusy where the lock is not ours any more, or not for long enough."""
        if self.clock() - self.own.at > EXPIRES_S - MARGIN_S or self.holder() != self.own:
            raise RegistryBusy(f"{self.path}: the store took so long that the lock has expired; nothing was done")

    def release(self) -> None:
        if self.holder() == self.own:
            self.fs.rm_file(self.path)

    def holder(self) -> Holder | None:
        """Who holds it. Raises RegistryError where that cannot be read."""
        try:
            content = self.fs.cat_file(self.path)
        except FileNotFoundError:
            return None
        if not content:  # a file system that shows a file before it is written
            raise RegistryBusy(f"{self.path}: another change is under way; nothing was done")
        try:
            return msgspec.json.decode(content, type=Holder)
        except msgspec.MsgspecError as error:
            raise RegistryError(f"{self.path}: is no lock: {error}; delete it if nobody changes anything") from error


def create(fs: Any, path: str, content: bytes) -> bool:
    """Makes a file that was not there; whether it did."""
    try:
        with fs.open(path, "xb") as file:
            file.write(content)
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno in REFUSED:
            return False
        raise
    return True
