"""Which versions of which models are loaded, and which one answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ranking.bundle import Bundle, load_bundle, versions
from ranking.errors import BundleError, UnknownVersion


class Versions:
    """The loaded bundles by model name and version.

    A placement names a model as `name` (its newest version at start) or `name@version` (pinned).
    """

    def __init__(self, bundles: dict[str, dict[str, Bundle]], current: dict[str, str]) -> None:
        self.bundles, self.current = bundles, current

    def resolve(self, model: str, version: str | None = None) -> Bundle:
        """The bundle that answers for a placement's `model`, or the version that a request insists on.

        Raises UnknownVersion.
        """
        name = model.partition("@")[0]
        wanted = version or self.current[model]
        loaded = self.bundles.get(name, {})
        if wanted not in loaded:
            raise UnknownVersion(f"model {name} has no version {wanted} here; loaded: {', '.join(loaded) or 'none'}")
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


def load_versions(models: Path, wanted: Iterable[str], keep: int) -> Versions:
    """Loads what the placements name, and the newest `keep` versions of each model. Raises BundleError."""
    bundles: dict[str, dict[str, Bundle]] = {}
    current: dict[str, str] = {}
    for model in dict.fromkeys(wanted):
        name, _, pinned = model.partition("@")
        present = versions(models, name)
        if not present:
            raise BundleError(models / name, "holds no version; `endcap train` makes one")
        if pinned and pinned not in present:
            raise BundleError(models / name / pinned, f"no such version; there are {', '.join(present)}")
        current[model] = pinned or present[-1]
        for version in dict.fromkeys([*present[-keep:], current[model]]):
            if version not in bundles.setdefault(name, {}):
                bundle = load_bundle(models / name / version)
                if (bundle.name, bundle.version) != (name, version):
                    raise BundleError(bundle.path, f"is {bundle.key} by its manifest, not {name}@{version}")
                bundles[name][version] = bundle
    return Versions(bundles, current)
