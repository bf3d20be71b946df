"""How a long step says how far it is, and what it did, without knowing a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


class Progress(Protocol):
    """Called as a step advances; `total` is None while the amount of work is unknown. Units are the step's own."""

    def __call__(self, done: int, total: int | None) -> None: ...


def silent(done: int, total: int | None) -> None:
    """The progress of a step that nobody watches."""


@dataclass(slots=True)
class Report:
    """What a step read, dropped (reason -> rows), and wrote (path or thing -> rows)."""

    read: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    wrote: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
