"""Changes of what stands for what, each checked before it is made; and which registry a deployment has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from features.facts import Feast
from ranking.aliases import MODEL, PRODUCTION
from ranking.changes import back, known, previous, restore, retire
from ranking.errors import BundleError, NoSuchVersion, RegistryError, RegistryUnavailable
from ranking.registry import Plan, Registry, State, begin, open_registry, point, present, remote, stands_for
from ranking.versions import load
from service.config import Config
from service.fit import USER, differences
from service.mirror import mirrored


def registry_of(directory: Path, config: Config) -> Registry:
    """Raises RegistryError where `models.directory` is a URL that nothing here speaks to."""
    return open_registry(config.models.directory, directory, directory / config.models.cache)


def registry_to_load(directory: Path, config: Config) -> tuple[Registry, list[str]]:
    """What a service loads from, on this machine; and what is to be said of it. Raises BundleError or RegistryError.

    Where the object store does not answer, and everything was fetched once, that is what it is loaded from.
    """
    where, cache = config.models.directory, directory / config.models.cache
    if not remote(where):
        return registry_of(directory, config), []
    models = named(config)
    try:
        return mirrored(where, cache, models, config.models.keep), []
    except RegistryUnavailable as error:
        cached = Registry(cache)
        if not all(cached.versions(one.partition("@")[0]) for one in models):
            raise
        return cached, [f"{error}; going on with what was fetched before, in {cache}"]


def named(config: Config) -> list[str]:
    """The models that placements name, and their arms and shadows by number; aliases are brought in any case."""
    placements = config.placements.values()
    shadows = [(one.model.partition("@")[0], one.shadow.version) for one in placements if one.shadow is not None]
    return [
        *(model for one in placements for model in one.models),
        *(f"{name}@{version}" for name, version in shadows if version.isdecimal()),
    ]


class Changes:
    """Makes the changes of one deployment: of the directory and its settings.

    Each takes the state first, then checks, then changes what is still that state. So what somebody else does meanwhile
    is an error (RegistryBusy), and a version that fails a check is one (BundleError); nothing is changed by either.
    """

    def __init__(self, directory: Path, config: Config, by: str) -> None:
        self.directory, self.config, self.by = directory, config, by
        self.registry = registry_of(directory, config)

    def promote(self, name: str, version: str, alias: str = PRODUCTION, why: str = "") -> tuple[State, State]:
        """The states before and after; the same where the alias is there already. Raises RegistryError, BundleError,
        or FeaturesError where Feast cannot be asked."""
        state, there = self.look(name)
        known(version, there)
        if state.aliases.get(alias) == version and state.rollout is None:
            return state, state
        point(state, alias, version, there)
        self.check(name, version)
        return state, self.registry.change(
            name,
            lambda now: point(now, alias, version, there, by=self.by, why=why),
            generation=state.generation,
        )

    def roll_out(self, name: str, version: str, plan: Plan, why: str = "") -> tuple[State, State]:
        """As `promote`, but by the first step of a plan; the service that runs takes the others."""
        state, there = self.look(name)
        known(version, there)
        begin(state, version, plan, there)
        self.check(name, version)
        return state, self.registry.change(
            name, lambda now: begin(now, version, plan, there, by=self.by, why=why), generation=state.generation
        )

    def rollback(self, name: str, alias: str = PRODUCTION, why: str = "") -> tuple[State, State]:
        """As `promote`, to what the alias stood on before."""
        state, there = self.look(name)
        if state.rollout is None or alias != PRODUCTION:
            self.check(name, previous(state, alias, there))
        return state, self.registry.change(
            name, lambda now: back(now, alias, there, by=self.by, why=why), generation=state.generation
        )

    def retire(self, name: str, version: str, why: str = "", *, delete: bool = False) -> tuple[State, State]:
        """Raises RegistryError where anything stands on it. `delete`: its files go as well, also of one that is retired
        already."""
        state, there = self.look(name)
        known(version, there)
        after = state
        if not (delete and version in state.retired):
            self.nobody_needs(name, version, state, there)
            after = self.registry.change(
                name, lambda now: retire(now, version, there, by=self.by, why=why), generation=state.generation
            )
        if delete:
            self.registry.storage.remove(name, version)
        return state, after

    def restore(self, name: str, version: str, why: str = "") -> tuple[State, State]:
        """Raises RegistryError, and BundleError where the version (its files may have been deleted) is not whole."""
        state, there = self.look(name)
        restore(state, version, there)
        self.check(name, version)
        return state, self.registry.change(
            name, lambda now: restore(now, version, there, by=self.by, why=why), generation=state.generation
        )

    def look(self, name: str) -> tuple[State, list[str]]:
        """A model's state, read before its versions: what is written in between is not in the state that is changed."""
        if not MODEL.fullmatch(name):
            return State(), known_model(self.registry, name)
        state = self.registry.read(name)
        return state, known_model(self.registry, name)

    def check(self, name: str, version: str) -> None:
        """Loads the version as a service does, and asks Feast whether it has what the version reads. Raises
        BundleError, RegistryError or FeaturesError."""
        feast = Feast(self.directory / self.config.features.repo)
        feast.start()
        try:
            bundle = load(self.registry, name, version)
            service = feast.facts().service(bundle.schema.feature_service, USER)
        finally:
            feast.close()
        if complaints := differences(bundle.schema, service):
            raise BundleError(bundle.path, "does not fit the Feast registry: " + "; ".join(complaints))

    def nobody_needs(self, name: str, version: str, state: State, there: list[str]) -> None:
        """Raises RegistryError where endcap.toml stands on the version."""
        placements = msgspec.to_builtins(self.config.placements)
        for setting, of, which in named_in(placements):
            if of != name:
                continue
            only = not which and stands_for(state, there) == version and present(state, there) == [version]
            if which == version or only:
                raise RegistryError(f"version {version} is what {setting} stands on (endcap.toml); change that first")


def known_model(registry: Registry, name: str) -> list[str]:
    """The versions of a model. Raises NoSuchVersion where there are none."""
    there = registry.versions(name) if MODEL.fullmatch(name) else []
    if not there:
        raise NoSuchVersion(f"no model {name!r}; there are {', '.join(registry.names()) or 'none'}")
    return there


def named_in(placements: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What the placements of an endcap.toml, as plain values, name: setting, model, and version or alias ('': neither,
    so what stands for the model)."""
    for place, one in placements.items():
        name, _, which = one["model"].partition("@")
        yield f"placements.{place}.model", name, which
        for arm in one.get("split") or ():
            yield f"placements.{place}.split", name, arm
        if shadow := one.get("shadow"):
            yield f"placements.{place}.shadow", name, shadow["version"]
