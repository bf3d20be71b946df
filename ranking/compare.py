"""Two bundles side by side: what one has, says or measured otherwise than the other. Reads manifests, and the ids of
items where the item tables differ; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ranking.errors import BundleError
from ranking.manifest import Manifest, read_manifest
from ranking.schema import Categorical, Dense

Facts = Mapping[str, Mapping[str, Any]]
"""Things by name, and of each thing fields."""

SOME = 10
"""Item ids that are named of those that came or went."""

ITEMS, CODES = "items.parquet", "scan_codes.npy"


class Change(Struct, frozen=True, omit_defaults=True):
    """A field on both sides. Of numbers `difference` is b - a; of a vocabulary `a` and `b` are how many words it has,
    and `moved` says that words which both have stand at other places, or in another order."""

    a: Any
    b: Any
    difference: float | None = None
    words_added: tuple[str, ...] = ()
    words_removed: tuple[str, ...] = ()
    moved: bool = False


class Section(Struct, frozen=True):
    """Names that only `b` has (`added`) or only `a` (`removed`), and the fields of others that changed. `reordered`:
    what both have stands in another order, where the order is what a model goes by."""

    added: dict[str, dict[str, Any]]
    removed: dict[str, dict[str, Any]]
    changed: dict[str, dict[str, Change]]
    reordered: bool = False

    @property
    def same(self) -> bool:
        return not (self.added or self.removed or self.changed or self.reordered)


class ItemChange(Struct, frozen=True):
    """How many items each side has, how many ids came and went, and the first of each; `reordered`: those that both
    have stand in other rows relative to one another."""

    a: int
    b: int
    added: int
    removed: int
    some_added: tuple[str, ...]
    some_removed: tuple[str, ...]
    reordered: bool


class Comparison(Struct, frozen=True):
    """`sections` are those that differ, `same` the names of the others. Name, version and time of making are told and
    never count as a difference: two versions always have them."""

    a: Manifest
    b: Manifest
    sections: dict[str, Section]
    items: ItemChange | None
    same: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return bool(self.sections) or self.items is not None


def compare(a: Path, b: Path) -> Comparison:
    """Raises BundleError where a manifest, or item ids that must be read, cannot be."""
    one, other = read_manifest(a), read_manifest(b)
    before, after = facts(one), facts(other)
    sections = {name: section(before[name], after[name], ordered="features" in name) for name in before}
    items = None if one.files.get(ITEMS) == other.files.get(ITEMS) else item_change(item_ids(a), item_ids(b))
    if items is not None and not (items.added or items.removed or items.reordered):
        items = None  # other facts of the same items: `files` says so
    same = [name for name, found in sections.items() if found.same] + ([] if items else ["item ids"])
    return Comparison(one, other, {n: found for n, found in sections.items() if not found.same}, items, tuple(same))


def facts(manifest: Manifest) -> dict[str, Facts]:
    """What a manifest says, section by section."""
    user, item = manifest.user, manifest.item
    recipe = {**msgspec.structs.asdict(manifest.index), "search": search(manifest)}
    modules = {"user_tower": manifest.user_tower, "ranker": manifest.ranker}
    return {
        "user features": named(user.dense, user.categorical),
        "item features": named(item.dense, item.categorical),
        "inputs": {
            "feature service": {"value": user.feature_service},
            "history": {"source": user.history.source, "type": user.history.type, "length": user.history.length},
            "bought items": {"value": user.purchased},
            "dimension": {"value": manifest.dimension},
        },
        "max age": {view: {"seconds": age} for view, age in user.max_age_s.items()},
        "index": {name: {"value": value} for name, value in recipe.items()},
        "modules": {role: msgspec.structs.asdict(one) for role, one in modules.items()},
        "metrics": {f"{model} {name}": {"value": value} for model, measured in manifest.metrics.items()
                    for name, value in measured.items()},
        "files": {name: {"bytes": one.bytes, "sha256": one.sha256} for name, one in manifest.files.items()},
        "shop": {"shop": {"value": manifest.shop}},
    }  # fmt: skip


def search(manifest: Manifest) -> str:
    """What searches the index on a CPU."""
    return "our scan" if CODES in manifest.files else "faiss"


def named(dense: Iterable[Dense], categorical: Iterable[Categorical]) -> dict[str, dict[str, Any]]:
    """The inputs by reference, in the order of the model's columns; one that is there again is numbered."""
    found: dict[str, dict[str, Any]] = {}
    for kind, inputs in (("dense", dense), ("categorical", categorical)):
        for one in inputs:
            fields = msgspec.structs.asdict(one)
            name = source = f"{fields.pop('source')} ({kind})"
            number = 1
            while name in found:
                number += 1
                name = f"{source} {number}"
            found[name] = fields
    return found


def section(a: Facts, b: Facts, ordered: bool) -> Section:
    both = [name for name in a if name in b]
    changed = {name: fields for name in both if (fields := changes(a[name], b[name]))}
    return Section(
        added={name: dict(b[name]) for name in b if name not in a},
        removed={name: dict(a[name]) for name in a if name not in b},
        changed=changed,
        reordered=ordered and both != [name for name in b if name in a],
    )


def changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Change]:
    return {name: change(a.get(name), b.get(name)) for name in {**a, **b} if a.get(name) != b.get(name)}


def change(a: Any, b: Any) -> Change:
    if isinstance(a, tuple) or isinstance(b, tuple):
        before, after = a or (), b or ()
        kept = [word for word in before if word in set(after)]
        moved = [before.index(word) for word in kept] != [after.index(word) for word in kept]
        added = tuple(word for word in after if word not in set(before))
        return Change(len(before), len(after), None, added, tuple(one for one in before if one not in kept), moved)
    if isinstance(a, float | int) and isinstance(b, float | int):
        return Change(a, b, b - a)
    return Change(a, b)


def item_change(a: list[str], b: list[str]) -> ItemChange:
    before, after = set(a), set(b)
    added, removed = [one for one in b if one not in before], [one for one in a if one not in after]
    reordered = [one for one in a if one in after] != [one for one in b if one in before]
    return ItemChange(len(a), len(b), len(added), len(removed), tuple(added[:SOME]), tuple(removed[:SOME]), reordered)


def item_ids(bundle: Path) -> list[str]:
    """Raises BundleError where they cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_table(bundle / ITEMS, columns=["item_id"])["item_id"].to_pylist()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise BundleError(
            bundle, f"its ids cannot be read: {' '.join(str(error).split())[:200]}", file=ITEMS
        ) from error
    return [str(one) for one in found]
