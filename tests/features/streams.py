"""A shop's events as live ones, and what is in the store after them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import redis

from features.consumer import Consumer
from features.events import Event
from features.history import History
from features.intake import Intake
from features.pipeline import Pipeline
from features.shop import Shop
from tests.features.shops import shop


def distinct_shop(events: int = 600, seed: int = 0, users: int = 12) -> Shop:
    """No two events at one instant: those that tie are ordered by their ids as a stream, by their rows as a batch."""
    one = shop(events=events, seed=seed, users=users)
    at = one.events["timestamp"].cast("int64").to_numpy()
    spread = np.maximum.accumulate(at) + np.arange(len(at)) * 1_000
    column = one.events.schema.get_field_index("timestamp")
    stamps = one.events["timestamp"].type
    import pyarrow as pa

    moved = one.events.set_column(column, "timestamp", pa.array(spread).cast(stamps))
    return Shop(moved, one.items, one.users)


def live(one: Shop) -> list[Event]:
    """The events of a shop as they would have been sent, oldest first."""
    batch = History(one.events, one.items, one.users)
    ids = one.events["user_id"].to_pylist(), one.events["item_id"].to_pylist(), one.events["event"].to_pylist()
    return [
        Event(f"e{n}", user, item, kind, at, None, paid if kind == "purchase" else None)
        for n, (user, item, kind, at, paid) in enumerate(
            zip(*ids, batch.times.tolist(), batch.spend.tolist(), strict=True)
        )
    ]


class Store:
    """One Feast project's share of a server."""

    def __init__(self, host: str, port: int, project: str) -> None:
        self.host, self.port, self.project = host, port, project
        self.client = redis.Redis(host=host, port=port, protocol=2)

    def pipeline(self) -> Pipeline:
        return Pipeline(self.host, self.port)

    def consumer(self, **options: Any) -> Consumer:
        return Consumer(self.pipeline(), self.project, **{"block_s": 0.05, **options})

    async def send(self, events: Sequence[Event], **options: Any) -> list[bool]:
        intake = Intake(self.pipeline(), self.project, **options)
        try:
            return (await intake.accept(events)).new
        finally:
            await intake.pipeline.close()

    def waiting(self) -> int:
        found: Any = self.client.xlen(f"endcap:{self.project}:events")
        return int(found)

    async def drain(self, *consumers: Consumer, within_s: float = 30.0) -> None:
        """Runs the consumers (one, if none is given) until the stream is empty."""
        running = consumers or (self.consumer(),)
        for one in running:
            one.start()
        await self.emptied(within_s)
        for one in running:
            await one.stop()

    async def emptied(self, within_s: float = 30.0) -> None:
        """Whoever consumes, until the stream is empty."""
        end = time.monotonic() + within_s
        while self.waiting():
            assert time.monotonic() < end, f"{self.waiting()} events are still in the stream"
            await asyncio.sleep(0.01)

    def hashes(self) -> dict[bytes, dict[bytes, bytes]]:
        """Every entity's hash, as Feast would read it."""
        keys = self.client.scan_iter(match=b"*_id" + b"*" + self.project.encode(), count=1000)
        mine = [key for key in keys if not key.startswith(b"endcap:")]
        return {key: self.client.hgetall(key) for key in mine}  # type: ignore[misc]


async def once(store: Store, events: Sequence[Event]) -> dict[bytes, dict[bytes, bytes]]:
    """The hashes after one clean run, in order."""
    await store.send(events)
    await store.drain()
    return store.hashes()
