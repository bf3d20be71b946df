"""Which of an event's keys hold what is not ours, so that nobody else waits for them."""

from __future__ import annotations

import asyncio

from features.events import Event
from features.keys import Keys
from features.layout import key_maker
from features.pipeline import Pipeline, encode


async def misfits(pipeline: Pipeline, project: str, event: Event) -> list[str]:
    """The keys of the event's user and item that have another type than we write, each with both; none where the fault
    lies elsewhere. Raises FeatureStoreError."""
    keys = Keys(project)
    wanted = {
        keys.user(event.user_id): "string",
        key_maker(project, "user_id")(event.user_id): "hash",
        keys.item(event.item_id): "zset",
        keys.bought(event.item_id): "zset",
        key_maker(project, "item_id")(event.item_id): "hash",
    }
    found = await asyncio.gather(*(pipeline.execute(encode(b"TYPE", key)) for key in wanted))
    pairs = zip(wanted.items(), (kind.decode() for kind in found), strict=True)
    return [f"{key!r} is a {kind}, not a {ours}" for (key, ours), kind in pairs if kind not in (ours, "none")]
