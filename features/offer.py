"""What Feast's registry offers to whoever reads or pushes features by name: views, services, push sources, as data."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

NO_ENTITY = "__dummy_id"
"""The join key that Feast gives to a view without an entity; its only value is the empty string."""


class OfferedView(Struct, frozen=True):
    """A feature view. `stored`: its name in the online store. `join_keys` and `types` map names to Feast's value types
    (`STRING`, `INT64_LIST`). `renamed`: of features whose column in the source has another name, that name. `closed`:
    why Feast does not serve it, empty where it does."""

    name: str
    stored: str
    join_keys: dict[str, str]
    types: dict[str, str]
    max_age_s: float | None
    version: int
    event_time: str
    push_source: str | None
    renamed: dict[str, str]
    closed: str


class Part(Struct, frozen=True):
    """What a feature service has of one view: the name that it goes by, the features, and by which names a request
    gives the view's join keys where those differ. `version`: the one that is pinned, None where it is the latest."""

    view: str
    alias: str
    features: tuple[str, ...]
    join_keys: dict[str, str]
    version: int | None


class Offer(Struct, frozen=True):
    """`entities`: join keys by entity. `on_demand`: names of views that are computed by Feast when they are asked for.
    `expire_s`: for how long Feast has an entity's hash live after a write, 0 for ever."""

    project: str
    views: dict[str, OfferedView]
    on_demand: tuple[str, ...]
    services: dict[str, tuple[Part, ...]]
    entities: dict[str, str]
    expire_s: int


def offered(store: Any) -> Offer:
    """Asks the registry of a `feast.FeatureStore`, as it is now."""
    from feast.on_demand_feature_view import OnDemandFeatureView

    registry, project = store.registry, store.project
    every = registry.list_all_feature_views(project, allow_cache=True)
    on_demand = sorted(str(view.name) for view in every if isinstance(view, OnDemandFeatureView))
    views = [offered_view(view, store.config) for view in every if not isinstance(view, OnDemandFeatureView)]
    services = {
        str(one.name): tuple(part(projection) for projection in one.feature_view_projections)
        for one in registry.list_feature_services(project, allow_cache=True)
    }
    entities = {str(one.name): str(one.join_key) for one in registry.list_entities(project, allow_cache=True)}
    expire_s = int(getattr(store.config.online_store, "key_ttl_seconds", None) or 0)
    return Offer(project, {one.name: one for one in views}, tuple(on_demand), services, entities, expire_s)


def offered_view(view: Any, config: Any) -> OfferedView:
    from feast.data_source import PushSource
    from feast.infra.online_stores.helpers import compute_versioned_name

    source, pushed = view.batch_source, view.stream_source
    mapping = getattr(source, "field_mapping", None) or {}
    return OfferedView(
        name=str(view.name),
        stored=compute_versioned_name(view, config.registry.enable_online_feature_view_versioning),
        join_keys={str(one.name): one.dtype.to_value_type().name for one in view.entity_columns},
        types={str(one.name): one.dtype.to_value_type().name for one in view.features},
        max_age_s=view.ttl.total_seconds() if view.ttl else None,
        version=getattr(view, "current_version_number", 0) or 0,
        event_time=str(getattr(source, "timestamp_field", "") or "event_timestamp"),
        push_source=str(pushed.name) if isinstance(pushed, PushSource) else None,
        renamed={str(to): str(name) for name, to in mapping.items()},
        closed=why_closed(view),
    )


def why_closed(view: Any) -> str:
    """As Feast has it: a view that is disabled, or is in another state than available, serves nothing."""
    if not getattr(view, "enabled", True):
        return "it is disabled"
    state = getattr(getattr(view, "state", None), "name", "STATE_UNSPECIFIED")
    return "" if state in ("STATE_UNSPECIFIED", "AVAILABLE_ONLINE") else f"it is in the state {state}"


def part(projection: Any) -> Part:
    return Part(
        str(projection.name),
        str(projection.name_alias or projection.name),
        tuple(str(one.name) for one in projection.features),
        {str(key): str(name) for key, name in projection.join_key_map.items()},
        getattr(projection, "version_tag", None),
    )
