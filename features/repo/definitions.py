"""This shop's features, as Feast definitions. Yours to edit; `endcap materialize` (or `feast apply`) registers them.

The tag `freshness_slo` says how old a view may be before it is worth an alarm. A view's `ttl` is its max age: past it,
Endcap treats its values as missing, in training (through the point-in-time join) and in serving alike.
"""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Bool, Float32, Int64, String

# Absolute, because the offline store resolves a relative path against the working directory.
FEATURES = Path(__file__).resolve().parents[1] / "data" / "features"

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="A shopper")
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING, description="An item of the catalogue")


def rows(view: str) -> FileSource:
    return FileSource(name=f"{view}_rows", path=str(FEATURES / f"{view}.parquet"), timestamp_field="event_timestamp")


user_activity_push = PushSource(name="user_activity_push", batch_source=rows("user_activity"))
user_recent_push = PushSource(name="user_recent_push", batch_source=rows("user_recent"))
item_stats_push = PushSource(name="item_stats_push", batch_source=rows("item_stats"))

user_profile = FeatureView(
    name="user_profile",
    description="What changes slowly; computed in batch, once a day",
    entities=[user],
    ttl=timedelta(days=365),
    tags={"freshness_slo": "26h"},
    schema=[
        Field(name="country", dtype=String),
        Field(name="tenure_days", dtype=Float32),
        Field(name="orders", dtype=Int64),
        Field(name="avg_price", dtype=Float32),
        Field(name="top_category", dtype=String),
    ],
    source=rows("user_profile"),
)

user_activity = FeatureView(
    name="user_activity",
    description="Events counted over sliding windows; beyond 30 days all are zero, which is their default",
    entities=[user],
    ttl=timedelta(days=30),
    tags={"freshness_slo": "5m"},
    schema=[
        *(
            Field(name=f"{kind}_{window}", dtype=Int64)
            for kind in ("views", "carts", "purchases")
            for window in ("1h", "24h", "7d", "30d")
        ),
        Field(name="spend_30d", dtype=Float32),
    ],
    source=user_activity_push,
)

user_recent = FeatureView(
    name="user_recent",
    description="The last items touched and bought, newest last",
    entities=[user],
    ttl=timedelta(days=365),
    tags={"freshness_slo": "5m"},
    schema=[
        Field(name="item_ids", dtype=Array(String)),
        Field(name="purchased_item_ids", dtype=Array(String)),
    ],
    source=user_recent_push,
)

item_stats = FeatureView(
    name="item_stats",
    description="An item's price, stock, and popularity over sliding windows",
    entities=[item],
    ttl=timedelta(days=7),
    tags={"freshness_slo": "26h"},
    schema=[
        Field(name="price", dtype=Float32),
        Field(name="category", dtype=String),
        Field(name="in_stock", dtype=Bool),
        *(Field(name=f"events_{window}", dtype=Int64) for window in ("24h", "7d", "30d")),
        *(Field(name=f"purchases_{window}", dtype=Int64) for window in ("7d", "30d")),
    ],
    source=item_stats_push,
)

default = FeatureService(
    name="default",
    description="What the model `default` reads",
    features=[user_profile, user_activity, user_recent, item_stats],
)
