"""Which versions of which models are loaded, and which one answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ranking.bundle import Bundle, load_bundle
from ranking.errors import BundleError, UnknownVersion
from ranking.registry import Registry, Rollout, State, present, stands_for


class Versions:
    """The loaded bundles by model name and version.

    A model is named as `name` (what stands for it: the alias `production` or, where none is set, the newest version),
    `name@version` (pinned) or `name@alias`. `current` has the version behind each such name, `rollouts` the promotions
    under way by model, `generations` the generation of each model's aliases that all this is of.
    """

    def __init__(
        self,
        bundles: dict[str, dict[str, Bundle]],
        current: dict[str, str],
        rollouts: dict[str, Rollout] | None = None,
        generations: dict[str, int] | None = None,
    ) -> None:
        self.bundles, self.current, self.rollouts = bundles, current, rollouts or {}
        self.generations = generations or {}

    def resolve(self, model: str, version: str | None = None) -> Bundle:
        """The bundle that answers for a placement's `model`, or the version (or alias) that a request insists on.

        Raises UnknownVersion.
        """
        name = model.partition("@")[0]
        wanted = self.current[model] if version is None else self.current.get(f"{name}@{version}", version)
        loaded = self.bundles[name]
        if wanted not in loaded:
            raise UnknownVersion(f"model {name} has no version {wanted} here; loaded: {', '.join(loaded)}")
        return loaded[wanted]

    def drop(self, bundle: Bundle) -> None:
        """Unloads a version, which then answers no request. Raises ValueError for one that a placement stands on."""
        if self.stands_on(bundle):
            raise ValueError(f"{bundle.key} is what a placement answers with")
        del self.bundles[bundle.name][bundle.version]

    def stands_on(self, bundle: Bundle) -> bool:
        """Whether a placement answers with this version."""
        return any(self.resolve(model) is bundle for model in self.current)

    def all(self) -> list[Bundle]:
        return [bundle for loaded in self.bundles.values() for bundle in loaded.values()]

    def item_ids(self) -> Iterator[str]:
        """The ids of every version's items, each once; those that are added meanwhile too. Holds no list of them."""
        seen: list[Bundle] = []
        for bundle in self.all():
            yield from (one for one in bundle.items.ids if not any(one in before.items.row_of for before in seen))
            seen.append(bundle)


def load_versions(registry: Registry, wanted: Iterable[str], keep: int) -> Versions:
    """Loads what is wanted (as Versions names it), what the models' aliases stand on, and the newest `keep` versions of
    each model. Raises BundleError or RegistryError."""
    bundles: dict[str, dict[str, Bundle]] = {}
    current: dict[str, str] = {}
    rollouts: dict[str, Rollout] = {}
    generations: dict[str, int] = {}
    for model in dict.fromkeys(wanted):
        name = model.partition("@")[0]
        there, state = registry.versions(name), registry.read(name)
        version = standing(registry, model, state, there)
        current[model], generations[name] = version, state.generation
        if state.rollout is not None:
            rollouts[name] = state.rollout
        for one in dict.fromkeys([*needed(state, there, keep), version]):
            if one not in bundles.setdefault(name, {}):
                bundles[name][one] = load(registry, name, one)
    return Versions(bundles, current, rollouts, generations)


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


def needed(state: State, there: list[str], keep: int) -> list[str]:
    """The versions to have loaded, whatever placements say."""
    named = [*state.aliases.values(), *([state.rollout.version] if state.rollout else [])]
    usable = present(state, there)
    return list(dict.fromkeys([*usable[-keep:], *(one for one in named if one in usable)]))


def load(registry: Registry, name: str, version: str) -> Bundle:
    """Raises BundleError."""
    bundle = load_bundle(registry.fetch(name, version))
    if (bundle.name, bundle.version) != (name, version):
        raise BundleError(bundle.path, f"is {bundle.key} by its manifest, not {name}@{version}")
    return bundle
