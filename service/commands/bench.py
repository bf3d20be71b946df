"""`endcap bench stages`: where the microseconds of an answer go, stage by stage, for the models of a deployment.

The deployment's own request path answers requests of random known shoppers in this process: real features from its
store, its index, its models. Left out are HTTP and the serving log; `make bench-open` has both.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import statistics
import time
from collections import defaultdict
from pathlib import Path

import msgspec
import orjson
import uvloop
from rich.table import Table

from features.errors import FeaturesError
from service.app import App
from service.commands.shoppers import known_ids
from service.config import LogConfig
from service.console import console
from service.deployment import Deployment
from service.http.answers import RECOMMENDATIONS
from service.recommend import Recommender
from service.trace import Trace
from service.wire import RecommendRequest

WARM_UP = 200
INNER = ("queue", "encode", "filter", "retrieve", "score", "select")
"""The engine's own stages: parts of `engine`."""


@dataclasses.dataclass(slots=True)
class Run:
    """What one concurrency gave: seconds of each stage by request, and of wall and CPU for all of them."""

    concurrency: int
    requests: int
    stages: dict[str, list[float]]
    wall_s: float
    cpu_s: float


def stages(directory: Path, placement: str, count: int, requests: int, concurrency: list[int]) -> None:
    """Prints a table for each concurrency. Raises FeaturesError where the store knows no shopper."""
    here = Deployment.at(directory)
    with here.online_store():
        for run in uvloop.run(measure(here, placement, count, requests, concurrency)):
            show(run)


async def measure(here: Deployment, placement: str, count: int, requests: int, concurrency: list[int]) -> list[Run]:
    quiet = msgspec.structs.replace(
        here.config,
        events=msgspec.structs.replace(here.config.events, consume=False),
        log=LogConfig(enabled=False),
    )
    app = App(here.directory, quiet)
    try:
        await app.load()
        recommender = app.api.answers.answering()
        users = await shoppers(app)
        asked = [
            orjson.dumps({"user_id": user, "placement": placement, "count": count})
            for user in random.Random(0).choices(users, k=requests + WARM_UP)
        ]
        found = []
        for each in concurrency:
            await play(app, recommender, asked[:WARM_UP], each)
            found.append(await play(app, recommender, asked[WARM_UP:], each))
        return found
    finally:
        await app.stop()


async def shoppers(app: App) -> list[str]:
    """Ids of shoppers whom the store knows."""
    assert app.reader is not None
    plan = app.reader.plan
    ids = await known_ids(app.reader.pipeline, plan, 5_000)
    if not ids:
        raise FeaturesError("the online store knows no shopper; `endcap materialize` loads them")
    return ids


async def play(app: App, recommender: Recommender, bodies: list[bytes], concurrency: int) -> Run:
    """Closed loop: so many at once, each next one as soon as one is answered."""
    times: dict[str, list[float]] = defaultdict(list)
    waiting, decoder = iter(bodies), app.api.answers.decoders[RECOMMENDATIONS]

    async def ask() -> None:
        for body in waiting:
            trace = Trace()
            with trace("decode"):
                request: RecommendRequest = decoder.decode(body)
            answer = await recommender.recommend(request, trace)
            with trace("encode_json"):
                msgspec.json.encode(answer)
            for stage, seconds in trace.stages.items():
                times[stage].append(seconds)
            times["all"].append(trace.elapsed())

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(ask() for _ in range(concurrency)))
    return Run(concurrency, len(bodies), times, time.perf_counter() - wall, time.process_time() - cpu)


def show(run: Run) -> None:
    each = 1e6 / run.requests
    table = Table(
        title=f"{run.requests:,} requests, {run.concurrency} at once: {run.requests / run.wall_s:,.0f}/s, "
        f"{run.cpu_s * each:,.0f} us of CPU each (without HTTP and serving log)",
        title_justify="left",
    )
    table.add_column("stage")
    for name in ("mean us", "p50 us", "p99 us"):
        table.add_column(name, justify="right")
    for stage, seconds in run.stages.items():
        ordered = sorted(seconds)
        shown = (statistics.fmean(ordered), ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)])
        table.add_row(("  " if stage in INNER else "") + stage, *(f"{value * 1e6:,.0f}" for value in shown))
    console.print(table)
