"""Request and response types of Feast's feature-server API, by Feast's names. As Feast's server does, fields that are
not known are left out of account: a newer SDK may send them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Frame = Annotated[
    dict[str, list[Any]],
    Meta(
        description="Columns by name: join keys, features, and the event time in ISO 8601 (UTC where it says no zone)."
    ),
]


class GetOnlineFeaturesRequest(Struct, frozen=True):
    """Which features, as `view:feature` or by a feature service, of which entities, as columns by join key."""

    entities: dict[str, list[Any]]
    feature_service: str | None = None
    features: list[str] = []
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False


class PushRequest(Struct, frozen=True):
    """Rows for every view that a push source feeds. `to`: only `online` is done here."""

    push_source_name: str
    df: Frame
    to: Literal["online", "offline", "online_and_offline"] = "online"
    allow_registry_cache: bool = True
    transform_on_write: bool = True


class WriteRequest(Struct, frozen=True):
    """Rows for one view: what `FeatureStore.push` sends where the online store is `remote`."""

    feature_view_name: str
    df: Frame
    allow_registry_cache: bool = True
    transform_on_write: bool = True


class Written(Struct, frozen=True):
    """`written`: rows that are in the store now; `older`: rows that are not newer than what was there."""

    written: int
    older: int


class ViewMetadata(Struct, frozen=True):
    name: str
    version: int = 0


class FeaturesMetadata(Struct, frozen=True):
    """`feature_names`: the entities' columns, then the features, one a result."""

    feature_names: list[str]
    feature_view_metadata: list[ViewMetadata] = []


class FeatureVector(Struct, frozen=True):
    """One column of the answer, an entity a row."""

    values: list[Any]
    statuses: list[Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"]]
    event_timestamps: list[str]


class OnlineFeatures(Struct, frozen=True):
    """Features of the entities that were asked for, column by column."""

    metadata: FeaturesMetadata
    results: list[FeatureVector]
