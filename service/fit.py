"""Whether the loaded models and the Feast registry speak of the same features, and what must be read for them."""

from __future__ import annotations

from pathlib import Path

from features.errors import FeaturesError
from features.online import ReadPlan, View
from features.registry import ServiceFeatures, service_features
from features.store import open_store
from ranking.errors import BundleError
from ranking.schema import UserSchema, check_references
from ranking.versions import Versions


def fit(repo: Path, versions: Versions) -> tuple[ReadPlan, ReadPlan, list[str]]:
    """What the online reader must read for the loaded versions, checked against the Feast registry; and all that Feast
    offers of a user.

    A version that was trained on what Feast does not offer (any more) is unloaded, and the list says so. Raises
    BundleError, which says what differs, where it is one that a placement answers with.
    """
    store = open_store(repo)
    offered: dict[str, ServiceFeatures] = {}
    notices, views = [], dict[str, tuple[list[str], float | None]]()
    for bundle in versions.all():
        name = bundle.schema.feature_service
        service = offered.setdefault(name, service_features(store, name, "user"))
        if complaints := differences(bundle.schema, service):
            said = "does not fit the Feast registry: " + "; ".join(complaints)
            if versions.stands_on(bundle):
                raise BundleError(bundle.path, said)
            versions.drop(bundle)
            notices.append(f"{bundle.path}: not loaded: {said}")
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
    return ReadPlan(project, join_key, read), ReadPlan(project, join_key, list(every.values())), notices


def differences(schema: UserSchema, service: ServiceFeatures) -> list[str]:
    """What a model was trained on that its feature service does not offer as it did then."""
    complaints = check_references(schema.references(), service.types)
    for view in service.views:
        trained = schema.max_age_s.get(view.name, view.max_age_s)
        if trained != view.max_age_s:
            complaints.append(f"{view.name}: trained with max age {trained} s, Feast's ttl is {view.max_age_s} s")
    return complaints
