"""Which versions of which models are loaded, and which one answers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ranking.aliases import PRODUCTION
from ranking.bundle import Bundle, load_bundle
from ranking.errors import BundleError, UnknownVersion
from ranking.registry import Registry, Rollout, State, present, stands_for

log = logging.getLogger(__name__)


class Versions:
    """The loaded bundles by model name and version.

    A model is named as `name` (what stands for it: the alias `production` or, where none is set, the newest version),
    `name@version` (pinned) or `name@alias`. `current` has the version behind each such name, `rollouts` the promotions
    under way by model, `generations` the generation of each model's aliases that all this is of. `wanted` are the names
    that placements answer with (None: all of them).
    """

    def __init__(
        self,
        bundles: dict[str, dict[str, Bundle]],
        current: dict[str, str],
        rollouts: dict[str, Rollout] | None = None,
        generations: dict[str, int] | None = None,
        wanted: Iterable[str] | None = None,
    ) -> None:
        self.bundles, self.current, self.rollouts = bundles, current, rollouts or {}
        self.generations = generations or {}
        self.wanted = list(current if wanted is None else wanted)

    def resolve(self, model: str, version: str | None = None) -> Bundle:
        """The bundle that answers for a placement's `model`, or the version (or alias) that a request insists on.

        Raises UnknownVersion.
        """
        name = model.partition("@")[0]
        wanted = self.current[model] if version is None else self.current.get(f"{name}@{version}", version)
        loaded = self.bundles.get(name, {})
        if wanted not in loaded:
            raise UnknownVersion(f"model {name} has no version {wanted} here; loaded: {', '.join(loaded) or 'none'}")
        return loaded[wanted]

    def drop(self, bundle: Bundle) -> None:
        """Unloads a version, which then answers no request. Raises ValueError for one that a placement stands on."""
        if self.stands_on(bundle):
            raise ValueError(f"{bundle.key} is what a placement answers with")
        del self.bundles[bundle.name][bundle.version]
        self.forget(bundle.name, bundle.version)

    def forget(self, name: str, version: str) -> None:
        """Has no alias stand on a version that is not loaded."""
        named = {model: one for model, one in self.current.items() if model.partition("@")[0] == name}
        gone = {model for model, one in named.items() if one == version}
        self.current = {model: one for model, one in self.current.items() if model not in gone}

    def stands_on(self, bundle: Bundle) -> bool:
        """Whether a placement answers with this version."""
        return any(self.resolve(model) is bundle for model in self.wanted)

    def all(self) -> list[Bundle]:
        return [bundle for loaded in self.bundles.values() for bundle in loaded.values()]

    def item_ids(self) -> Iterator[str]:
        """The ids of every version's items, each once; those that are added meanwhile too. Holds no list of them."""
        seen: list[Bundle] = []
        for bundle in self.all():
            yield from (one for one in bundle.items.ids if not any(one in before.items.row_of for before in seen))
            seen.append(bundle)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be of one model: the versions to have loaded, those that answer first; the version behind each name;
    the promotion under way; the names that name none, which stay on what they are; and the generation of the state."""

    needed: list[str]
    current: dict[str, str]
    rollout: Rollout | None
    nameless: list[str]
    generation: int


def target(name: str, state: State, there: list[str], keep: int, current: Mapping[str, str]) -> Target:
    """Of the model `name`, from its state and its versions on disk. `current` has the version behind each name now."""
    usable, found, nameless = present(state, there), dict[str, str](), list[str]()
    for model, now in current.items():
        its, _, which = model.partition("@")
        if its != name:
            continue
        version = stands_for(state, there, which)
        if not which and PRODUCTION not in state.aliases and now in usable:
            version = now  # the newest at the start; a newer one takes over where somebody says so
        if version is None:
            nameless.append(model)
        found[model] = version or now
    found.update(aliased(name, state, usable))
    rollout = state.rollout if state.rollout is not None and state.rollout.version in usable else None
    first = [*found.values(), *([rollout.version] if rollout else [])]
    return Target(
        list(dict.fromkeys([*first, *needed(state, there, keep)])), found, rollout, nameless, state.generation
    )


def load_versions(registry: Registry, wanted: Iterable[str], keep: int) -> Versions:
    """Loads what is wanted (as Versions names it), what the models' aliases stand on, and the newest `keep` versions of
    each model. Of these a version that fails is left out, unless a placement answers with it. Raises BundleError or
    RegistryError."""
    names = list(dict.fromkeys(wanted))
    bundles: dict[str, dict[str, Bundle]] = {}
    current: dict[str, str] = {}
    rollouts: dict[str, Rollout] = {}
    generations: dict[str, int] = {}
    for model in names:
        name = model.partition("@")[0]
        there, state = registry.versions(name), registry.read(name)
        version = standing(registry, model, state, there)
        current[model], generations[name] = version, state.generation
        current.update(aliased(name, state, present(state, there)))
        if state.rollout is not None:
            rollouts[name] = state.rollout
        if version not in bundles.setdefault(name, {}):
            bundles[name][version] = load(registry, name, version)
    found = Versions(bundles, current, rollouts, generations, names)
    for name, loaded in bundles.items():
        for one in needed(registry.read(name), registry.versions(name), keep):
            try:
                if one not in loaded:
                    loaded[one] = load(registry, name, one)
            except BundleError as error:
                found.forget(name, one)
                log.warning("%s: left out", error)
        bundles[name] = dict(sorted(loaded.items(), key=lambda one: int(one[0])))
    return found


def standing(registry: Registry, model: str, state: State, there: list[str]) -> str:
    """The version that a placement's `model` names. Raises BundleError where there is none."""
    name, _, which = model.partition("@")
    home = registry.home(name)
    if not present(state, there):
        raise BundleError(home, "holds no version; `endcap train` makes one")
    if (version := stands_for(state, there, which)) is None:
        known = ", ".join([*present(state, there), *state.aliases])
        raise BundleError(home, f"{which or 'production'} names no version; there are {known}")
    return version


def aliased(name: str, state: State, usable: list[str]) -> dict[str, str]:
    """The version behind each alias, as Versions names it, whether a placement asks for it or not: a request may, and a
    shadow does as soon as there is one."""
    return {f"{name}@{alias}": version for alias, version in state.aliases.items() if version in usable}


def needed(state: State, there: list[str], keep: int) -> list[str]:
    """The versions to have loaded, whatever placements say."""
    named = [*state.aliases.values(), *([state.rollout.version] if state.rollout else []), *before(state)]
    usable = present(state, there)
    return list(dict.fromkeys([*usable[-keep:], *(one for one in named if one in usable)]))


def before(state: State) -> list[str]:
    """What stood on `production` until the last promotion: a rollback must not have to load it."""
    promotions = (one for one in reversed(state.history) if one.alias == PRODUCTION)
    return [version for version in (next((one.before for one in promotions), None),) if version]


def load(registry: Registry, name: str, version: str) -> Bundle:
    """Raises BundleError."""
    bundle = load_bundle(registry.fetch(name, version))
    if (bundle.name, bundle.version) != (name, version):
        raise BundleError(bundle.path, f"is {bundle.key} by its manifest, not {name}@{version}")
    return bundle
