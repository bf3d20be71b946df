"""Whether the loaded models and the Feast registry speak of the same features, and what must be read for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from features.errors import FeaturesError
from features.facts import Facts
from features.online import ReadPlan, View
from features.registry import ServiceFeatures
from ranking.errors import BundleError
from ranking.schema import UserSchema, check_references
from ranking.versions import Versions

USER, ITEM = "user", "item"
"""Entities of the Feast definitions."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What the online reader must read for the loaded versions, and everything that Feast offers of a user; the feature
    view that the item tables are of, where there is one; and which versions are not loaded any more, and why: as
    notices, and by model and version."""

    plan: ReadPlan
    everything: ReadPlan
    item_view: str | None
    notices: list[str]
    misfits: dict[tuple[str, str], str] = field(default_factory=dict)


def fit(facts: Facts, versions: Versions) -> Fit:
    """Checks the loaded versions against the Feast registry.

    One that was trained on what Feast does not offer (any more) is unloaded, and a notice says so. Raises BundleError,
    which says what differs, where it is one that a placement answers with.
    """
    offered: dict[str, ServiceFeatures] = {}
    notices, views = [], dict[str, tuple[list[str], float | None]]()
    misfits: dict[tuple[str, str], str] = {}
    for bundle in versions.all():
        name = bundle.schema.feature_service
        service = offered.setdefault(name, facts.service(name, USER))
        if complaints := differences(bundle.schema, service):
            said = "does not fit the Feast registry: " + "; ".join(complaints)
            if versions.stands_on(bundle):
                raise BundleError(bundle.path, said)
            versions.drop(bundle)
            notices.append(f"{bundle.path}: not loaded: {said}")
            misfits[bundle.name, bundle.version] = said
            continue
        ages = {view.name: view.max_age_s for view in service.views}
        for reference in bundle.schema.references():
            view, _, feature = reference.partition(":")
            wanted, _ = views.setdefault(view, ([], ages[view]))
            if feature not in wanted:
                wanted.append(feature)
    entities = {(service.project, service.join_key) for service in offered.values()}
    if len(entities) != 1:
        raise FeaturesError(f"the models' feature services differ in project or user entity: {sorted(entities)}")
    project, join_key = entities.pop()
    read = [View(name, tuple(one), age) for name, (one, age) in views.items()]
    every = {view.name: view for service in offered.values() for view in service.views}
    everything = ReadPlan(project, join_key, list(every.values()))
    return Fit(ReadPlan(project, join_key, read), everything, item_view(facts, versions), notices, misfits)


def together(one: ReadPlan, other: ReadPlan) -> ReadPlan:
    """What either reads; where they differ in a view's max age, as `other` has it. Raises FeaturesError where they read
    of different projects or entities."""
    if (one.project, one.join_key) != (other.project, other.join_key):
        said = f"{other.project!r} by {other.join_key!r}, not {one.project!r} by {one.join_key!r}"
        raise FeaturesError(f"its feature service is of the project {said}, as that of what is loaded")
    views = {view.name: view for view in one.views}
    for view in other.views:
        before = views[view.name].features if view.name in views else ()
        views[view.name] = View(view.name, tuple(dict.fromkeys([*before, *view.features])), view.max_age_s)
    return ReadPlan(one.project, one.join_key, list(views.values()))


def item_view(facts: Facts, versions: Versions) -> str | None:
    """The view of items, among the models' feature services, that has the most of the columns that the models read."""
    if ITEM not in facts.entities:
        return None
    shared: dict[str, int] = {}
    for bundle in versions.all():
        columns = set(bundle.manifest.item.columns())
        for view in facts.service(bundle.schema.feature_service, ITEM).views:
            shared[view.name] = max(shared.get(view.name, 0), len(columns & set(view.features)))
    best = max(shared, key=lambda name: shared[name], default=None)
    return best if best is not None and shared[best] else None


def differences(schema: UserSchema, service: ServiceFeatures) -> list[str]:
    """What a model was trained on that its feature service does not offer as it did then."""
    complaints = check_references(schema.references(), service.types)
    for view in service.views:
        trained = schema.max_age_s.get(view.name, view.max_age_s)
        if trained != view.max_age_s:
            complaints.append(f"{view.name}: trained with max age {trained} s, Feast's ttl is {view.max_age_s} s")
    return complaints
