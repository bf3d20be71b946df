"""A deployment whose Feast repo has more than the demo's: every common type, two join keys, no entity, other names."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from aiohttp import web

from features.facts import Feast
from features.lookup import LookupReader
from features.pipeline import Pipeline
from features.push import Pusher
from features.store import apply, connection, open_store, quiet
from service.app import App
from service.config import FeastApiConfig, read_config
from service.feast_desk import FeastDesk
from service.http.server import Api
from service.many import BatchConfig
from service.metrics import Metrics
from tests.service.conftest import Client, make_deployment

DEFINITIONS = """
from feast import OnDemandFeatureView, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Bytes, Float64, Int32, UnixTimestamp

MORE = Path(__file__).resolve().parents[1] / "more"


def more(view):
    return FileSource(name=f"{view}_more", path=str(MORE / f"{view}.parquet"), timestamp_field="at")


shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.INT64)

every_type_push = PushSource(name="every_type_push", batch_source=more("every_type"))
every_type = FeatureView(
    name="every_type", entities=[shop], ttl=None, source=every_type_push,
    schema=[
        Field(name="shop_id", dtype=Int64), Field(name="text", dtype=String), Field(name="small", dtype=Int32),
        Field(name="large", dtype=Int64), Field(name="single", dtype=Float32), Field(name="double", dtype=Float64),
        Field(name="truth", dtype=Bool), Field(name="raw", dtype=Bytes), Field(name="seen", dtype=UnixTimestamp),
        Field(name="texts", dtype=Array(String)), Field(name="larges", dtype=Array(Int64)),
        Field(name="doubles", dtype=Array(Float64)), Field(name="truths", dtype=Array(Bool)),
    ],
)
pair_push = PushSource(name="pair_push", batch_source=more("pair"))
pair = FeatureView(
    name="pair", entities=[user, shop], ttl=timedelta(days=1), source=pair_push,
    schema=[Field(name="user_id", dtype=String), Field(name="shop_id", dtype=Int64), Field(name="visits", dtype=Int64)],
)


@on_demand_feature_view(sources=[user_profile], schema=[Field(name="twice", dtype=Float64)])
def doubled(inputs):
    import pandas as pd

    return pd.DataFrame({"twice": inputs["tenure_days"] * 2})


mixed = FeatureService(
    name="mixed", features=[user_profile[["country", "orders"]], pair, item_stats.with_name("thing")[["price"]]]
)
friend = FeatureService(
    name="friend",
    features=[
        user_profile.with_name("me")[["country"]],
        user_profile.with_name("friend").with_join_key_map({"user_id": "friend_id"})[["orders"]],
    ],
)
computed = FeatureService(name="computed", features=[doubled])
"""
WORLD = """
world_push = PushSource(name="world_push", batch_source=more("world"))
world = FeatureView(
    name="world", entities=[], ttl=None, source=world_push, schema=[Field(name="sales", dtype=Float64)]
)
"""
"""A view without an entity, which Feast's materialization with DuckDB cannot read."""
NOW = datetime.now(UTC).replace(microsecond=0)
SHOPS = 40


def every_type() -> pa.Table:
    ids = range(SHOPS)
    return pa.table({
        "shop_id": pa.array(ids, pa.int64()), "at": pa.array([NOW - timedelta(hours=i, microseconds=i) for i in ids]),
        "text": [None if i == 7 else f"é{i}" for i in ids], "small": pa.array([-i for i in ids], pa.int32()),
        "large": pa.array([2**62 + i for i in ids], pa.int64()),
        "single": pa.array([i * 1.1 for i in ids], pa.float32()), "double": [i / 7 for i in ids],
        "truth": [i % 2 == 0 for i in ids], "raw": [bytes([i, 255]) for i in ids],
        "seen": pa.array([NOW - timedelta(days=i) for i in ids]), "texts": [["a", f"b{i}"] for i in ids],
        "larges": pa.array([[i, -i] for i in ids], pa.list_(pa.int64())), "doubles": [[i / 3, 0.5] for i in ids],
        "truths": [[True, False] for _ in ids],
    })  # fmt: skip


def pairs() -> pa.Table:
    """Of shops 0 and 1; of shop 1 they are older than the view's max age."""
    users = [f"u{i}" for i in range(12)] * 2
    shops = [0] * 12 + [1] * 12
    times = [NOW - timedelta(hours=1 if shop == 0 else 30) for shop in shops]
    return pa.table({"user_id": users, "shop_id": shops, "at": times, "visits": list(range(24))})


def make_feast_shop(directory: Path, address: str) -> Path:
    """As every deployment, with those views beside its own, all of them in the store."""
    more = directory / "more"
    more.mkdir(parents=True)
    pq.write_table(every_type(), more / "every_type.parquet")
    pq.write_table(pairs(), more / "pair.parquet")
    pq.write_table(pa.table({"at": [NOW], "sales": [math.pi]}), more / "world.parquet")
    make_deployment(directory, address, project="feastapi", more=DEFINITIONS)
    with (directory / "feature_repo" / "definitions.py").open("a") as definitions:
        definitions.write(WORLD)
    apply(directory / "feature_repo")
    return directory


@asynccontextmanager
async def serving(directory: Path, **settings: Any) -> AsyncIterator[Client]:
    """The service with Feast's API open, as `settings` have it."""
    config = msgspec.structs.replace(
        read_config(directory), feast_api=FeastApiConfig(**{"enabled": True, "push": True, **settings})
    )
    app = App(directory, config)
    port = await app.listen("127.0.0.1", 0)
    await app.load()
    async with aiohttp.ClientSession() as session:
        yield Client(app, session, f"http://127.0.0.1:{port}")
    await app.stop()


@asynccontextmanager
async def answering(directory: Path, **settings: Any) -> AsyncIterator[tuple[str, FeastDesk]]:
    """Feast's API without the rest of the service, which takes seconds to load: its address and who answers."""
    config = FeastApiConfig(**{"enabled": True, "push": True, **settings})
    repo, metrics = directory / "feature_repo", Metrics()
    feast = Feast(repo)
    pipelines = [Pipeline(**connection(repo)) for _ in range(2)]
    api = Api(metrics, ready, metrics.text, 1 << 20, BatchConfig())
    api.feast.opened = config.enabled
    offer = (await asyncio.to_thread(feast.facts)).offer
    desk = api.feast.desk = FeastDesk(feast, LookupReader(pipelines[0]), Pusher(pipelines[1]), config, offer)
    runner = web.AppRunner(api.application(), handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", desk
    await runner.cleanup()
    for one in pipelines:
        await one.close()


async def ready() -> None:
    """Nothing stands in the way."""


def remote_store(directory: Path, url: str) -> Any:
    """The stock SDK on the same registry, with Endcap for its online store."""
    from feast import FeatureStore, RepoConfig

    direct = open_store(directory / "feature_repo")
    with quiet():
        given = direct.config.model_dump(include={"project", "provider", "entity_key_serialization_version"})
        registry = str(directory / "feature_repo" / "registry.db")
        online = {"type": "remote", "path": url, "connection_retries": 0}
        offline = {"type": "duckdb"}
        return FeatureStore(config=RepoConfig(**given, registry=registry, online_store=online, offline_store=offline))
