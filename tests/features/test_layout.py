"""The fast reader against Feast's own SDK, on a real server: what one writes the other reads, for every type."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

from features.errors import FeaturesError
from features.layout import decode_timestamp, decode_value, varint
from features.online import OnlineReader, ReadPlan
from features.pipeline import Pipeline
from features.registry import service_features
from tests.conftest import Server

SCALARS: dict[str, tuple[Any, list[Any]]] = {
    "a_bool": (Bool, [True, False]),
    "a_bytes": (Bytes, [b"\x00\xff", b""]),
    "a_string": (String, ["naïve ☃", ""]),
    "an_int32": (Int32, [-(2**31), 0]),
    "an_int64": (Int64, [2**62 + 1, 0]),
    "a_float32": (Float32, [1.5, 0.0]),
    "a_float64": (Float64, [math.pi, -0.0]),
    "a_time": (UnixTimestamp, [datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC)]),
}
LISTS: dict[str, tuple[Any, list[Any]]] = {
    "bools": (Array(Bool), [[True, False], [False]]),
    "byte_strings": (Array(Bytes), [[b"x", b""], [b"y"]]),
    "strings": (Array(String), [["a", "", "ü" * 200], []]),
    "int32s": (Array(Int32), [[-1, 0, 7], [0]]),
    "int64s": (Array(Int64), [[2**40, -5], [0]]),
    "float32s": (Array(Float32), [[0.5, -2.0], [0.0]]),
    "float64s": (Array(Float64), [[math.e], [0.0]]),
    "times": (Array(UnixTimestamp), [[datetime(2026, 3, 1, tzinfo=UTC)], [datetime(1970, 1, 2, tzinfo=UTC)]]),
}
TYPES = SCALARS | LISTS
NOW = datetime.now(UTC).replace(microsecond=123456)


@pytest.fixture(scope="module")
def store(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Two users and every type: `first` has telling values, `second` zeros and empties; `stale` is past its TTL."""
    repo = tmp_path_factory.mktemp("layout")
    (repo / "feature_store.yaml").write_text(
        f"project: layout\nregistry: registry.db\nprovider: local\n"
        f"online_store: {{type: redis, connection_string: '{valkey.address}'}}\n"
        f"offline_store: {{type: duckdb}}\nentity_key_serialization_version: 3\n"
    )
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    pd.DataFrame({"user_id": ["x"], "event_timestamp": [NOW]}).to_parquet(repo / "unused.parquet")
    source = FileSource(path=str(repo / "unused.parquet"), timestamp_field="event_timestamp")
    views = [
        FeatureView(
            name=name,
            entities=[user],
            ttl=timedelta(hours=1),
            schema=[Field(name=one, dtype=kind) for one, (kind, _) in types.items()],
            source=source,
        )
        for name, types in (("scalars", SCALARS), ("lists", LISTS))
    ]
    store = FeatureStore(repo_path=str(repo))
    store.apply([user, *views, FeatureService(name="all", features=views)])
    ids, times = ["first", "second", "stale"], [NOW, NOW, NOW - timedelta(hours=2)]
    for name, types in (("scalars", SCALARS), ("lists", LISTS)):
        columns = {one: [*values, values[0]] for one, (_, values) in types.items()}
        store.write_to_online_store(name, pd.DataFrame({"user_id": ids, "event_timestamp": times, **columns}))
    return store


def reader(store: FeatureStore, valkey: Server, **options: Any) -> OnlineReader:
    service = service_features(store, "all", "user")
    pipeline = Pipeline(valkey.host, valkey.port)
    return OnlineReader(pipeline, ReadPlan(service.project, service.join_key, service.views), **options)


def feast_reads(store: FeatureStore, user: str) -> dict[str, Any]:
    references = [f"{view}:{name}" for view, types in (("scalars", SCALARS), ("lists", LISTS)) for name in types]
    answer = store.get_online_features(features=references, entity_rows=[{"user_id": user}]).to_dict()
    return {name: answer[name][0] for name in TYPES}


@pytest.mark.parametrize("user", ["first", "second"])
async def test_every_value_equals_what_feast_reads(store: FeatureStore, valkey: Server, user: str) -> None:
    """Every scalar and list type, zeros and empties included, has the same value and the same Python type."""
    one = reader(store, valkey)
    try:
        ours = await one.read(user)
    finally:
        await one.close()
    theirs = feast_reads(store, user)
    for view, types in (("scalars", SCALARS), ("lists", LISTS)):
        for name in types:
            value = ours.values.get(f"{view}:{name}")
            assert value == theirs[name], name
            assert type(value) is type(theirs[name]), name


async def test_a_missing_entity_is_missing_where_feast_says_present(store: FeatureStore, valkey: Server) -> None:
    """Feast returns nulls for an entity that it does not have; the reader says so for each view."""
    one = reader(store, valkey)
    try:
        ours = await one.read("nobody")
    finally:
        await one.close()
    assert {state.status for state in ours.views.values()} == {"missing"}
    assert not ours.values and not ours.known
    assert set(feast_reads(store, "nobody").values()) == {None}


async def test_a_view_past_its_ttl_gives_its_age_and_no_values(store: FeatureStore, valkey: Server) -> None:
    """Feast's Python SDK does not enforce a TTL online; the reader does."""
    one = reader(store, valkey)
    try:
        ours = await one.read("stale")
    finally:
        await one.close()
    assert {state.status for state in ours.views.values()} == {"outside_max_age"}
    assert all(7200 <= (state.age_s or 0) < 10800 for state in ours.views.values())
    assert not ours.values
    assert feast_reads(store, "stale")["an_int64"] == 2**62 + 1


async def test_age_is_the_time_since_the_event_and_never_negative(store: FeatureStore, valkey: Server) -> None:
    one = reader(store, valkey, now=lambda: NOW.timestamp() - 5)
    later = reader(store, valkey, now=lambda: NOW.timestamp() + 90.25)
    try:
        assert (await one.read("first")).views["scalars"].age_s == 0.0
        assert (await later.read("first")).views["scalars"].age_s == pytest.approx(90.25, abs=1e-5)
    finally:
        await one.close()
        await later.close()


def test_an_unknown_feature_service_is_refused_with_those_that_there_are(store: FeatureStore) -> None:
    with pytest.raises(FeaturesError, match="no feature service 'home'; there are: all"):
        service_features(store, "home", "user")


@pytest.mark.parametrize("seconds", [0, 1, 1_795_000_000, -5])
@pytest.mark.parametrize("nanos", [0, 1, 999_999_999])
def test_timestamps_decode_as_protobuf_does(seconds: int, nanos: int) -> None:
    """proto3 leaves zero fields out, and encodes negative seconds in ten bytes."""
    from google.protobuf.timestamp_pb2 import Timestamp

    data = Timestamp(seconds=seconds, nanos=nanos).SerializeToString()
    assert decode_timestamp(data) == pytest.approx(seconds + nanos * 1e-9)


def test_a_malformed_value_raises_value_error_wherever_it_is_cut() -> None:
    """Every prefix and every flipped first byte either decodes or raises ValueError, never anything else."""
    from feast.protos.feast.types.Value_pb2 import StringList, Value

    whole = [
        Value(string_list_val=StringList(val=["abc", "d"])).SerializeToString(),
        Value(int64_val=-1).SerializeToString(),
        Value(double_val=1.5).SerializeToString(),
        Value(string_val="hello").SerializeToString(),
    ]
    for data in whole:
        for cut in range(len(data)):
            for first in range(256):
                broken = bytes([first]) + data[1:cut]
                try:
                    decode_value(broken)
                except ValueError:
                    continue


def test_a_varint_longer_than_ten_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 10"):
        varint(b"\xff" * 11 + b"\x00", 0)
