"""From a shop's batch of events to what the consumer of live events goes on from.

The batch is the truth up to its newest event: live events up to then are in it or are void, later ones are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from features.apply import Write, apply_command
from features.errors import FeatureStoreError
from features.functions import WINDOWS
from features.history import History as Batch
from features.keys import Keys
from features.layout import encode_timestamp, key_maker, timestamp_field
from features.liveviews import ACTIVITY, POPULARITY_HEAD, RECENT, encoded, features
from features.pipeline import Pipeline, encode
from features.progress import Progress, Report, silent
from features.scripts import ALL_COUNTED, POPULARITY
from features.userstate import History, columns, state_of

STEP = 100
"""Entities whose commands are under way together."""

BATCH_MEMBER = b"\xff%d"
"""A batch's event, by its place, among live ones, by their ids: those are UTF-8, in which this byte never is."""

TRIES = 20
MONTH = max(WINDOWS.values())

REPLACE = b"""
-- KEYS: an item's events, its purchases. ARGV: the batch's newest time, (time, member, '1' for a purchase)...
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[1])
local live = redis.call('ZCARD', KEYS[1])
for i = 2, #ARGV, 3 do
  redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
  if ARGV[i + 2] == '1' then redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
return live
"""
"""How many live events outdate the batch."""


class Seed:
    """Writes users' histories and items' popularity of one Feast project. Safe beside a running consumer."""

    def __init__(self, pipeline: Pipeline, project: str, events: pa.Table, items: pa.Table, users: pa.Table) -> None:
        self.pipeline, self.keys = pipeline, Keys(project)
        self.user_key, self.item_key = key_maker(project, "user_id"), key_maker(project, "item_id")
        self.batch = Batch(events, items, users)
        self.item_ids: list[str] = self.batch.item_ids.to_pylist()

    async def run(self, progress: Progress = silent) -> Report:
        """Raises FeatureStoreError when the store does not take it."""
        users = self.groups(self.batch.user, self.batch.user_ids)
        items = self.groups(self.batch.item, self.item_ids)
        total, done = len(users) + len(items), 0
        live = 0
        for start in range(0, len(users), STEP):
            some = users[start : start + STEP]
            live += sum(await asyncio.gather(*(self.user(who, self.history(places)) for who, places in some)))
            progress(done := done + len(some), total)
        for start in range(0, len(items), STEP):
            chunk = items[start : start + STEP]
            await asyncio.gather(*(self.item(item, places) for item, places in chunk))
            progress(done := done + len(chunk), total)
        await self.pipeline.execute(encode(b"EVAL", ALL_COUNTED, b"1", self.keys.counted))
        return Report(wrote={"user histories": len(users), "item counts": len(items), "live events kept": live})

    def groups(self, keys: Any, ids: Sequence[str]) -> list[tuple[str, Any]]:
        """Each entity that has events, with the places of those."""
        places = self.batch.groups(keys, len(ids))
        return [(one, theirs) for one, theirs in zip(ids, places, strict=True) if len(theirs)]

    def history(self, places: Any) -> History:
        """One user's events of the batch."""
        b = self.batch
        return History(
            b.times[places].tolist(),
            b.kinds[places].tolist(),
            [self.item_ids[item] for item in b.item[places].tolist()],
            b.spend[places].tolist(),
            [0] * len(places),
        )

    async def user(self, user_id: str, batch: History) -> int:
        """One user's history, and their features where live events outdate those of the batch. How many those are."""
        key, entity = self.keys.user(user_id), self.user_key(user_id)
        for _ in range(TRIES):
            raw = await self.pipeline.execute(encode(b"GET", key))
            state = state_of(user_id, raw)
            later = [i for i, at in enumerate(state.history.times) if at > self.batch.newest]
            kept = [[column[i] for i in later] for column in columns(state.history)]
            state.history = History(*(mine + live for mine, live in zip(columns(batch), kept, strict=True)))
            state.trim()
            write = Write(key, entity, state.guard(), state.encode())
            if later:
                stamp = encode_timestamp(state.newest)
                for view in (ACTIVITY, RECENT):
                    named = features(view, state).items()
                    parts = [part for name, value in named for part in encoded(view, name, value)]
                    write.fields = [*write.fields, *parts, timestamp_field(view), stamp]
            (written,) = await self.pipeline.execute(apply_command(self.keys.events, (), [write]))
            if written:
                return len(later)
        raise FeatureStoreError(f"user {user_id!r} was written by others {TRIES} times in a row")

    async def item(self, item_id: str, places: Any) -> None:
        """One item's events of the last 30 days, instead of all that it has up to the batch's newest."""
        times, bought = self.batch.times[places], self.batch.purchase[places]
        recent = times > self.batch.newest - MONTH
        rows: list[bytes] = []
        for place, at, purchase in zip(places[recent].tolist(), times[recent], bought[recent], strict=True):
            rows += [b"%d" % at, BATCH_MEMBER % place, b"1" if purchase else b"0"]
        keys = (self.keys.item(item_id), self.keys.bought(item_id), self.item_key(item_id))
        if await self.pipeline.execute(encode(b"EVAL", REPLACE, b"2", *keys[:2], b"%d" % self.batch.newest, *rows)):
            counted = (*POPULARITY_HEAD, item_id.encode(), b"0")
            await self.pipeline.execute(encode(b"EVAL", POPULARITY, b"4", self.keys.counted, *keys, *counted))
