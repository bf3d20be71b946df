"""Which version of a model stands for what: aliases, a rollout under way, what was retired, and how it came to be so.

One small file a model, `models/<name>/aliases.json`, changed under a lock and replaced as a whole: who reads it sees
the state before a change or after it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from ranking.aliases import PRODUCTION, Alias, Version
from ranking.errors import BundleError, RegistryBusy, RegistryError
from ranking.manifest import MANIFEST, Manifest
from ranking.storage import ALIASES as FILE
from ranking.storage import LocalDirectory, Storage

KEPT = 200
"""Changes that the history keeps."""


class Change(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the history: what was done to which alias (or to a version itself), by whom and why. `before` is
    what the alias named until then."""

    at: datetime
    action: str
    version: str
    alias: str | None = None
    before: str | None = None
    by: str = ""
    why: str = ""


class Rules(Struct, frozen=True, forbid_unknown_fields=True):
    """What a version must keep to while it is rolled out; what is left out is not asked. `p99_s` in seconds, `overlap`
    the least share of items in common with production's answers, the others the most of its answers (errors: of its
    requests; defaulted: of the features that it read)."""

    p99_s: Annotated[float, Meta(gt=0)] | None = None
    errors: Annotated[float, Meta(ge=0, le=1)] | None = None
    degraded: Annotated[float, Meta(ge=0, le=1)] | None = None
    defaulted: Annotated[float, Meta(ge=0, le=1)] | None = None
    overlap: Annotated[float, Meta(ge=0, le=1)] | None = None


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """A promotion in steps: the shares, each for at least `hold_s` seconds and `least` answers, under rules."""

    steps: Annotated[list[Annotated[float, Meta(gt=0, le=1)]], Meta(min_length=1, max_length=20)]
    hold_s: Annotated[float, Meta(ge=0)] = 300.0
    least: Annotated[int, Meta(ge=1)] = 200
    rules: Rules = Rules()

    def __post_init__(self) -> None:
        if sorted(set(self.steps)) != self.steps or self.steps[-1] != 1:
            raise ValueError("steps must grow and end at all shoppers")


class Rollout(Struct, frozen=True, forbid_unknown_fields=True):
    """A promotion under way: `version` answers a `share` of the shoppers of every placement that stands on
    `production` and splits nothing itself, since then. With a plan the service itself takes the next step, or goes
    back."""

    version: Version
    share: Annotated[float, Meta(ge=0, le=1)]
    since: datetime
    plan: Plan | None = None

    @property
    def compares(self) -> bool:
        """Whether its answers must agree with production's."""
        return self.plan is not None and self.plan.rules.overlap is not None


class State(Struct, frozen=True, forbid_unknown_fields=True):
    """All of aliases.json. `generation` grows by one with each change."""

    format: Literal[1] = 1
    generation: int = 0
    aliases: dict[Alias, Version] = {}
    rollout: Rollout | None = None
    retired: list[Version] = []
    history: list[Change] = []

    def noted(self, action: str, version: str, **said: str | None) -> State:
        """The same with one more entry of history, of now. `said` fills a Change's other fields."""
        now = datetime.now(UTC).isoformat()
        entry = msgspec.convert({"at": now, "action": action, "version": version, **said}, Change)
        return replace(self, history=[*self.history, entry][-KEPT:])


class Registry:
    """The models below a directory, or in another storage. Safe for several processes at once."""

    def __init__(self, models: Path | Storage) -> None:
        self.storage = LocalDirectory(models) if isinstance(models, Path) else models
        self.models = self.storage.local

    def names(self) -> list[str]:
        """The models that have a version, by name."""
        return [name for name in self.storage.names() if self.versions(name)]

    def versions(self, name: str) -> list[str]:
        """The versions of a model, oldest first, retired ones too."""
        return self.storage.versions(name)

    def home(self, name: str) -> str:
        """Where a model lies, for people."""
        return self.storage.home(name)

    def read(self, name: str) -> State:
        """Raises RegistryError where the file is damaged, RegistryUnavailable where it cannot be read."""
        content = self.storage.aliases(name)
        try:
            return State() if content is None else msgspec.json.decode(content, type=State)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RegistryError(f"{self.home(name)}/{FILE}: {error}") from error

    def stamp(self, name: str) -> Hashable:
        """What is another whenever `read` is: for who looks often. Raises RegistryUnavailable."""
        return self.storage.stamp(name)

    def change(self, name: str, edit: Callable[[State], State], *, generation: int | None = None) -> State:
        """What `edit` makes of the state becomes the state. Raises RegistryError, and changes nothing, where another
        change is under way, where there has been one since `generation`, or where the storage refuses."""
        with self.storage.locked(name) as write:
            before = self.read(name)
            if generation is not None and before.generation != generation:
                last = before.history[-1] if before.history else None
                said = f": {last.action} of {last.version} at {last.at:%H:%M:%S}" if last else ""
                raise RegistryBusy(
                    f"{self.home(name)}: was changed meanwhile{said}; nothing was done, look and try again"
                )
            after = replace(edit(before), generation=before.generation + 1)
            write(msgspec.json.format(msgspec.json.encode(after), indent=1))
        return after

    def locked(self, name: str) -> AbstractContextManager[object]:
        """Nobody else changes this model's state meanwhile. Raises RegistryBusy where somebody else does."""
        return self.storage.locked(name)

    def fetch(self, name: str, version: str) -> Path:
        """The version's directory on this machine. Raises BundleError or RegistryUnavailable."""
        return self.storage.fetch(name, version)

    def manifest(self, name: str, version: str) -> Manifest:
        """Raises BundleError, or RegistryUnavailable."""
        where = f"{self.home(name)}/{version}"
        try:
            return msgspec.json.decode(self.storage.manifest(name, version), type=Manifest)
        except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
            raise BundleError(where, f"is damaged, or no manifest: {error}", file=MANIFEST) from error

    def publish(self, name: str, write: Callable[[Path], Path]) -> Path:
        """Makes the next version: `write` gets the directory to write it below (as `ranking.bundle.write_bundle` does)
        and returns its place. Returns its place on this machine. Raises what `write` raises, and RegistryError."""
        return self.storage.publish(name, write)


def remote(models: str) -> bool:
    """Whether models are in an object store, and not in a directory."""
    return "://" in models and not models.startswith("file://")


def open_registry(models: str, directory: Path, cache: Path) -> Registry:
    """The registry at a path (relative to `directory`) or a URL, whose versions come into `cache`.

    Raises RegistryError where nothing here speaks to such a URL.
    """
    if not remote(models):
        return Registry(directory / models.removeprefix("file://"))
    from ranking.object_store import ObjectStore  # what serves from a directory needs no fsspec

    return Registry(ObjectStore(models, cache))


def present(state: State, there: list[str]) -> list[str]:
    """The versions that may answer, oldest first: those on disk that are not retired."""
    return [one for one in there if one not in state.retired]


def stands_for(state: State, there: list[str], wanted: str = "") -> str | None:
    """The version that `wanted` names: a number, an alias, or nothing at all, which is `production` where that is set
    and else the newest. None where there is no such one."""
    usable = present(state, there)
    if not wanted:
        found = state.aliases.get(PRODUCTION, usable[-1] if usable else None)
    else:
        found = state.aliases.get(wanted, wanted)
    return found if found in usable else None


def point(state: State, alias: str, version: str, there: list[str], *, by: str = "", why: str = "") -> State:
    """The state with the alias on this version; a rollout ends where production is named by hand. Raises RegistryError
    where the version cannot answer."""
    usable = present(state, there)
    if version not in usable:
        kind = "is retired" if version in there else "does not exist"
        raise RegistryError(f"version {version} {kind}; there are {', '.join(usable) or 'none'}")
    before = state.aliases.get(alias)
    rollout = None if alias == PRODUCTION else state.rollout
    changed = replace(state, aliases={**state.aliases, alias: version}, rollout=rollout)
    return changed.noted(
        "promote" if alias == PRODUCTION else "alias", version, alias=alias, before=before, by=by, why=why
    )


def begin(state: State, version: str, plan: Plan, there: list[str], *, by: str = "", why: str = "") -> State:
    """The state with the first step of a promotion in steps. Raises RegistryError where another is under way, or where
    the version cannot answer or is production already."""
    if state.rollout is not None:
        raise RegistryError(
            f"version {state.rollout.version} is being rolled out, at {share_of(state.rollout.share)}; "
            "roll it back first, or wait"
        )
    if state.aliases.get(PRODUCTION) == version:
        raise RegistryError(f"version {version} is {PRODUCTION} already")
    if PRODUCTION not in state.aliases:
        raise RegistryError(f"no version is {PRODUCTION} yet; promote one that can be gone back to first")
    point(state, PRODUCTION, version, there)
    rollout = Rollout(version, plan.steps[0], datetime.now(UTC), plan)
    said = f"{share_of(plan.steps[0])} of {', '.join(map(share_of, plan.steps))}" + (f": {why}" if why else "")
    before = state.aliases[PRODUCTION]
    return replace(state, rollout=rollout).noted("rollout", version, alias=PRODUCTION, before=before, by=by, why=said)


def step(state: State, *, by: str, why: str) -> State:
    """The state with the next step of its rollout; after the last one it is production's version. The rollout must be
    there, with a plan."""
    rollout = state.rollout
    assert rollout is not None and rollout.plan is not None
    further = [one for one in rollout.plan.steps if one > rollout.share]
    if not further:
        before = state.aliases.get(PRODUCTION)
        done = replace(state, aliases={**state.aliases, PRODUCTION: rollout.version}, rollout=None)
        return done.noted("promote", rollout.version, alias=PRODUCTION, before=before, by=by, why=why)
    on, before = replace(rollout, share=further[0], since=datetime.now(UTC)), state.aliases.get(PRODUCTION)
    return replace(state, rollout=on).noted("step", on.version, alias=PRODUCTION, before=before, by=by, why=why)


def abandon(state: State, *, by: str, why: str) -> State:
    """The state without its rollout, which must be there: production is what it was before it began."""
    assert state.rollout is not None
    stays = state.aliases.get(PRODUCTION)
    ended = replace(state, rollout=None)
    return ended.noted("abandon", state.rollout.version, alias=PRODUCTION, before=stays, by=by, why=why)


def share_of(share: float) -> str:
    return f"{share * 100:g} %"


def versions_named(state: State) -> Mapping[str, str]:
    """What stands on which version: the aliases, and the rollout under its own name."""
    return {**state.aliases, **({"rollout": state.rollout.version} if state.rollout else {})}
