"""What the Feast registry says of a model's features: which views, of which types, with which TTL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from features.errors import FeaturesError
from features.online import View


@dataclass(frozen=True, slots=True)
class ServiceFeatures:
    """The views of one feature service that share one entity, and every feature's Feast type by reference."""

    project: str
    join_key: str
    views: tuple[View, ...]
    types: dict[str, str]


def service_features(store: Any, service: str, entity: str) -> ServiceFeatures:
    """Reads a feature service's views of one entity from the registry of a `feast.FeatureStore`.

    Raises FeaturesError when there is no such service.
    """
    from feast.errors import FeastObjectNotFoundException

    try:
        projections = store.get_feature_service(service).feature_view_projections
    except FeastObjectNotFoundException as error:
        known = ", ".join(sorted(one.name for one in store.list_feature_services())) or "none"
        raise FeaturesError(f"Feast has no feature service {service!r}; there are: {known}") from error
    join_key = store.get_entity(entity).join_key
    views: list[View] = []
    types: dict[str, str] = {}
    for projection in projections:
        view = store.get_feature_view(projection.name)
        if list(view.entities) != [entity]:
            continue
        names = tuple(field.name for field in projection.features)
        ttl = view.ttl.total_seconds() if view.ttl else None
        views.append(View(view.name, names, ttl))
        types |= {f"{view.name}:{field.name}": str(field.dtype) for field in projection.features}
    return ServiceFeatures(store.project, join_key, tuple(views), types)
