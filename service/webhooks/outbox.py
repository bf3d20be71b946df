"""Messages to be told to somebody: a file each, from before their reason is on record until they are delivered."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from service.jobs.files import durably

ID = re.compile(r"msg_[0-9a-z_]{1,100}")


class Message(Struct, frozen=True):
    """`first_at`: since when it is tried, `due`: when next, in seconds since the epoch."""

    id: str
    url: str
    body: str
    first_at: float
    due: float
    attempts: int = 0
    state: Literal["pending", "dead"] = "pending"
    error: str | None = None


class Outbox:
    """The messages in `directory`. Every method blocks, and raises OSError where the disk refuses."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, message: Message) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        durably(self.directory / f"{message.id}.json", msgspec.json.encode(message))

    def read(self, name: str) -> Message | None:
        """None where there is no such message (any more)."""
        if ID.fullmatch(name):
            with suppress(FileNotFoundError):
                return msgspec.json.decode((self.directory / f"{name}.json").read_bytes(), type=Message)
        return None

    def remove(self, name: str) -> None:
        (self.directory / f"{name}.json").unlink(missing_ok=True)

    def all(self, state: str) -> list[Message]:
        """The oldest first."""
        found = [self.read(path.stem) for path in self.directory.glob("msg_*.json")]
        wanted = [one for one in found if one is not None and one.state == state]
        return sorted(wanted, key=lambda one: (one.first_at, one.id))

    def tidy(self, before: float) -> None:
        """Removes dead ones that were first sent before `before`."""
        for one in self.all("dead"):
            if one.first_at < before:
                self.remove(one.id)
