"""What is said of models and their versions, on the command line and over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from ranking.aliases import PRODUCTION, Alias
from ranking.registry import Plan


class VersionReport(Struct, frozen=True):
    """A version that is there. `bytes`: what its files take; `metrics`: what was measured when it was trained, by
    ranking and metric; `damaged`: why nothing can be said of it. `loaded`: in the process that answers; on the command
    line nobody knows."""

    version: str
    created_at: datetime | None
    items: int | None
    metrics: dict[str, dict[str, float]]
    bytes: int
    aliases: list[str]
    retired: bool
    damaged: str | None = None
    loaded: bool | None = None


class ChangeReport(Struct, frozen=True):
    """One entry of the history. `before` is what the alias named until then."""

    at: datetime
    action: str
    version: str
    alias: str | None
    before: str | None
    by: str
    why: str


class ModelReport(Struct, frozen=True):
    """`generation` counts the changes; `history` has the last of them, oldest first."""

    name: str
    where: str
    versions: list[VersionReport]
    aliases: dict[str, str]
    rollout: dict[str, Any] | None
    retired: list[str]
    generation: int
    history: list[ChangeReport]


class Answering(Struct, frozen=True):
    """What a placement answers with in the process that is asked: its `model` setting, and the version behind it."""

    model: str
    version: str


class ModelsReport(Struct, frozen=True):
    """The registry as it is now, and what the process that answers (`pid`, one of `workers`) has made of it.
    `generations`: of each model's aliases, as far as this process has followed."""

    models: list[ModelReport]
    placements: dict[str, Answering]
    generations: dict[str, int]
    pid: int
    workers: int


class ChangeRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`why` is kept in the history. With a `plan` it is a promotion of production in steps, which the service takes by
    itself as long as the rules are kept (docs/models.md)."""

    alias: Alias = PRODUCTION
    why: Annotated[str, Meta(max_length=500)] = ""
    plan: Plan | None = None

    def __post_init__(self) -> None:
        if self.plan is not None and self.alias != PRODUCTION:
            raise ValueError(f"a plan is for {PRODUCTION} only")


class Changed(Struct, frozen=True):
    """What the alias stands for now, and did before. `changed` is false where it stood for that already. A rollout that
    was begun, or ended, leaves the alias as it was; `share` is what it gives its version."""

    name: str
    alias: str
    version: str | None
    before: str | None
    generation: int
    changed: bool
    share: float | None = None
