"""The first requests of a version, so that no shopper pays for a first time and it is known what each takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext

from ranking.batch import Engine, Query
from ranking.bundle import Bundle
from ranking.engine import BatchPath
from service.budget import Shares
from service.ladder import rungs, without
from service.placements import Placement

WARM_UPS = 3
"""Of each shape: the least of their times is what it takes, the first may have waited for anything."""


def shapes(bundle: Bundle, placements: Mapping[str, Placement]) -> Iterator[tuple[str, int, Query]]:
    """A query of every shape that placements ask for, with everything and with less and less: whose, on which rung."""
    for name, placement in placements.items():
        for count in (500, 20):
            query = Query(
                features={},
                sources=placement.sources,
                count=count,
                session=bundle.items.ids[:3],
                item_id=bundle.items.ids[0] if placement.needs_item else None,
                ranked=placement.ranked,
            )
            ladder = rungs(query, bundle.nprobe)
            for rung in range(len(ladder) + 1):
                yield name, rung, without(query, ladder[:rung])


async def warm_up(
    engine: Engine,
    bundles: Iterable[Bundle],
    placements: Mapping[str, Placement],
    shares: Shares,
    *,
    bulk: bool = False,
) -> None:
    """Each shape of each version, through the engine; `bulk`: after those who wait for an answer."""
    for bundle in bundles:
        for name, rung, query in shapes(bundle, placements):
            took = []
            for _ in range(WARM_UPS):
                began = time.perf_counter()
                await engine.submit(bundle.key, query, bulk=bulk)
                took.append(time.perf_counter() - began)
            shares.learn(name, rung, min(took))


def warm_apart(path: BatchPath, placements: Mapping[str, Placement]) -> None:
    """Each shape of a version that answers nobody yet, on the thread of whoever calls."""
    for _, _, query in shapes(path.bundle, placements):
        for _ in range(WARM_UPS):
            path.recommend([query], lambda stage: nullcontext())


def in_time(placements: Mapping[str, Placement], shares: Shares) -> float:
    """How many requests can be answered in their budget, each taking twice as long as alone; of the placement that has
    room for the fewest."""
    now = shares.clock()
    return min(one.timeout_ms / 1e3 / shares.engine_s(name, 0, now) for name, one in placements.items())
