"""Which versions of which models are loaded, and which one answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ranking.bundle import Bundle, load_bundle
from ranking.errors import BundleError, UnknownVersion
from ranking.registry import PRODUCTION, Registry, Rollout, State, present, stands_for


class Versions:
    """The loaded bundles by model name and version.

    A model is named as `name` (what stands for it: the alias `production` or, where none is set, the newest version),
    `name@version` (pinned) or `name@alias`. `current` has the version behind each such name, `rollouts` the promotions
    under way by model.
    """

    def __init__(
        self,
        bundles: dict[str, dict[str, Bundle]],
        current: dict[str, str],
        rollouts: dict[str, Rollout] | None = None,
    ) -> None:
        self.bundles, self.current, self.rollouts = bundles, current, rollouts or {}

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


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be of one model: the versions to have loaded, those that answer first; the version behind each name;
    the promotion under way; and the names that name none, which stay on what they are."""

    needed: list[str]
    current: dict[str, str]
    rollout: Rollout | None
    nameless: list[str]


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
    rollout = state.rollout if state.rollout is not None and state.rollout.version in usable else None
    first = [*found.values(), *([rollout.version] if rollout else [])]
    return Target(list(dict.fromkeys([*first, *needed(state, there, keep)])), found, rollout, nameless)


def load_versions(registry: Registry, wanted: Iterable[str], keep: int) -> Versions:
    """Loads what is wanted (as Versions names it), what the models' aliases stand on, and the newest `keep` versions of
    each model. Raises BundleError or RegistryError."""
    bundles: dict[str, dict[str, Bundle]] = {}
    current: dict[str, str] = {}
    rollouts: dict[str, Rollout] = {}
    for model in dict.fromkeys(wanted):
        name, _, which = model.partition("@")
        there, state = registry.versions(name), registry.read(name)
        home = registry.models / name
        if not present(state, there):
            raise BundleError(home, "holds no version; `endcap train` makes one")
        if (version := stands_for(state, there, which)) is None:
            known = ", ".join([*present(state, there), *state.aliases])
            raise BundleError(home, f"{which or 'production'} names no version; there are {known}")
        current[model] = version
        if state.rollout is not None:
            rollouts[name] = state.rollout
        for one in dict.fromkeys([*needed(state, there, keep), version]):
            if one not in bundles.setdefault(name, {}):
                bundles[name][one] = load(registry, name, one)
    return Versions(bundles, current, rollouts)


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
    bundle = load_bundle(registry.models / name / version)
    if (bundle.name, bundle.version) != (name, version):
        raise BundleError(bundle.path, f"is {bundle.key} by its manifest, not {name}@{version}")
    return bundle
