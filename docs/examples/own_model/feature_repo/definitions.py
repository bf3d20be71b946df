"""What is known of a shopper. The entity is called `user`, which is what Endcap asks Feast for."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64, String

DATA = Path(__file__).resolve().parent

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)


def rows(view: str) -> FileSource:
    return FileSource(name=f"{view}_rows", path=str(DATA / f"{view}.parquet"), timestamp_field="event_timestamp")


profile = FeatureView(
    name="profile",
    entities=[user],
    ttl=timedelta(days=365),
    schema=[Field(name="age", dtype=Int64), Field(name="spend", dtype=Float32), Field(name="country", dtype=String)],
    source=rows("profile"),
)
recent = FeatureView(
    name="recent",
    entities=[user],
    ttl=timedelta(days=30),
    schema=[Field(name="items", dtype=Array(String))],
    source=rows("recent"),
)
own_model = FeatureService(name="own_model", features=[profile, recent])
