"""Changes of items, on their way from a shop's backend to every worker's item table.

A hash holds what changes say together, for those who start later; a stream tells those who run. One script writes both.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from features.applied import place
from features.errors import FeatureStoreError
from features.keys import Keys
from features.layout import (
    encode_bool,
    encode_float32,
    encode_string,
    encode_timestamp,
    feature_field,
    key_maker,
    timestamp_field,
)
from features.pipeline import Pipeline, encode

log = logging.getLogger(__name__)

Fact = str | float | bool | None
UNUSABLE = (msgspec.MsgspecError, ValueError, TypeError, IndexError)
"""What an entry that somebody else wrote, or that was cut short, may raise."""

STATS = "item_stats"
FACTS = ("title", "category", "price", "in_stock")
KINDS: dict[str, Any] = {
    "title": str, "category": str, "price": float | None, "in_stock": bool, "removed": bool, "at": float,
}  # fmt: skip
"""What a fact must be; others are columns of the shop's own, any Fact."""

KEPT = 100_000
"""Entries of the stream. A worker that fell farther behind reads the hash again, as one that starts does."""

COUNT = 500
CHUNK = 200
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)

CHANGE = b"""
-- KEYS: item stream, catalogue, each item's entity hash. ARGV: most entries of the stream, field of the view's
-- timestamp, timestamp of now, then for each item: entry, n, n x (field, value) for the catalogue, n, n x (field,
-- value) for Feast.
local at, n = 4, 0
for k = 3, #KEYS do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'c', ARGV[at])
  for _, key in ipairs({KEYS[2], KEYS[k]}) do
    at = at + 1
    n = tonumber(ARGV[at])
    for i = 1, n do
      redis.call('HSET', key, ARGV[at + 1], ARGV[at + 2])
      at = at + 2
    end
  end
  at = at + 1
  if n > 0 then redis.call('HSETNX', KEYS[k], ARGV[2], ARGV[3]) end
end
return #KEYS - 2
"""


class ItemChange(msgspec.Struct, frozen=True, array_like=True):
    """What is new about an item. Facts by name: title, category, price, in_stock, removed, columns of its own, and
    `at`, when that was, in seconds since the epoch."""

    item_id: str
    facts: dict[str, Fact]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ItemChange)
_fact = msgspec.msgpack.Decoder(Fact)


def feast_fields(facts: Mapping[str, Fact]) -> list[bytes]:
    """Those of the facts that Feast's view of items has, in its layout, field and value in turn."""
    found: list[bytes] = []
    for name, value in facts.items():
        if name == "price":
            found += [feature_field(STATS, name), b"" if value is None else encode_float32(float(value))]
        elif name == "category":
            found += [feature_field(STATS, name), encode_string(str(value))]
        elif name == "in_stock":
            found += [feature_field(STATS, name), encode_bool(bool(value))]
        elif name == "removed" and value:
            found += [feature_field(STATS, "in_stock"), encode_bool(False)]
    return found


class Catalogue:
    """The item changes of one Feast project. `pipeline` must be its own where it follows: it blocks on it."""

    def __init__(self, pipeline: Pipeline, project: str, *, now: Callable[[], float] = time.time) -> None:
        self.pipeline, self.keys, self.now = pipeline, Keys(project), now
        self.entity = key_maker(project, "item_id")
        self.task: asyncio.Task[None] | None = None
        self.loaded = asyncio.Event()  # set once all changes so far were handed over
        self.again = False

    async def publish(self, changes: Sequence[ItemChange]) -> None:
        """Raises FeatureStoreError; changes of earlier chunks are then out, and sending them again is no harm."""
        for start in range(0, len(changes), CHUNK):
            await self.pipeline.execute(self.command(changes[start : start + CHUNK]))

    def command(self, changes: Sequence[ItemChange]) -> bytes:
        keys = [self.keys.items, self.keys.catalogue, *(self.entity(one.item_id) for one in changes)]
        parts: list[bytes] = []
        for one in changes:
            facts = {"at": self.now(), **one.facts}
            change = ItemChange(one.item_id, facts)
            kept = [(catalogue_field(one.item_id, name), _encoder.encode(value)) for name, value in facts.items()]
            served = feast_fields(one.facts)
            parts += [_encoder.encode(change), b"%d" % len(kept), *(part for pair in kept for part in pair)]
            parts += [b"%d" % (len(served) // 2), *served]
        stamp = encode_timestamp(int(self.now() * 1e6))
        head = (b"%d" % KEPT, timestamp_field(STATS), stamp)
        return encode(b"EVAL", CHANGE, b"%d" % len(keys), *keys, *head, *parts)

    async def reconcile(self, items: pa.Table, imported_at: float) -> int:
        """Where a batch of items (as in `features.shop`) is newer than an item's changes, its word stands: published as
        a change of its own. Returns for how many items. Raises FeatureStoreError."""
        changes, _ = await self.load()
        older = {one.item_id: one.facts for one in changes if float(one.facts.get("at") or 0) < imported_at}
        there = items.filter(pc.is_in(items["item_id"], pa.array(older, pa.string())))
        outdated = []
        for row in there.to_pylist():
            said = {name: row[name] for name in FACTS}
            if any(name in older[row["item_id"]] and older[row["item_id"]][name] != said[name] for name in FACTS):
                outdated.append(ItemChange(row["item_id"], {**said, "removed": False, "at": imported_at}))
        await self.publish(outdated)
        return len(outdated)

    async def load(self) -> tuple[list[ItemChange], bytes]:
        """All changes so far, one an item, and where to follow from. Raises FeatureStoreError."""
        newest = await self.pipeline.execute(encode(b"XREVRANGE", self.keys.items, b"+", b"-", b"COUNT", b"1"))
        facts: defaultdict[str, dict[str, Fact]] = defaultdict(dict)
        cursor = b"0"
        while True:
            command = encode(b"HSCAN", self.keys.catalogue, cursor, b"COUNT", b"1000")
            cursor, pairs = await self.pipeline.execute(command)
            for field, value in zip(pairs[::2], pairs[1::2], strict=True):
                try:
                    item_id, name, fact = known(field, value)
                except UNUSABLE as error:
                    log.error("%r of the hash of item changes cannot be used: %s", field, error)
                else:
                    facts[item_id][name] = fact
            if cursor == b"0":
                break
        found = [ItemChange(item_id, one) for item_id, one in facts.items()]
        return found, newest[0][0] if newest else b"0-0"

    async def follow(self, apply: Callable[[Sequence[ItemChange]], None]) -> None:
        """Hands over all changes so far, then each as it comes, until cancelled. A store that is gone is waited for,
        and nothing else ends it either: a worker that follows no more would answer with removed items for ever."""
        failures, at = 0, None
        while True:
            try:
                if at is None or self.again:
                    self.again = False
                    changes, at = await self.load()
                    hand_over(apply, changes)
                    self.loaded.set()
                changes, at = await self.after(at)
                hand_over(apply, changes)
                failures = 0
            except Exception as error:
                at = None
                if not isinstance(error, FeatureStoreError):
                    log.exception("item changes wait")  # a mistake of ours: it must be seen
                elif failures == 0:
                    log.warning("item changes wait: %s", error)
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1

    def start_over(self) -> None:
        """Has `follow` hand over all changes so far again."""
        self.again = True

    async def after(self, at: bytes) -> tuple[list[ItemChange], bytes | None]:
        """The changes after a place in the stream, and where they end; None where some may have been trimmed away."""
        command = encode(b"XREAD", b"COUNT", b"%d" % COUNT, b"BLOCK", b"500", b"STREAMS", self.keys.items, at)
        reply = await self.pipeline.execute(command)
        if not reply:
            return [], at
        # Asked for afterwards, so that no trimming in between is missed.
        oldest = await self.pipeline.execute(encode(b"XRANGE", self.keys.items, b"-", b"+", b"COUNT", b"1"))
        if not oldest or place(oldest[0][0].decode()) > place(at.decode()):
            log.info("item changes after %s may have left the stream: all are read again", at.decode())
            return [], None
        changes = []
        for at, fields in reply[0][1]:
            try:
                changes.append(change_of(fields))
            except UNUSABLE as error:
                log.error("entry %s of the item stream cannot be used: %s", at.decode(), error)
        return changes, at

    def start(self, apply: Callable[[Sequence[ItemChange]], None]) -> None:
        self.task = asyncio.create_task(self.follow(apply))

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.pipeline.close()


def catalogue_field(item_id: str, name: str) -> bytes:
    return f"{item_id}\0{name}".encode()


def known(field: bytes, value: bytes) -> tuple[str, str, Fact]:
    """An entry of the hash as item, fact's name and fact. Raises one of UNUSABLE."""
    item_id, _, name = field.decode().rpartition("\0")
    if not item_id:
        raise ValueError("it names no item")
    fact: Fact = msgspec.convert(_fact.decode(value), KINDS.get(name, Fact))
    return item_id, name, fact


def change_of(fields: Sequence[bytes]) -> ItemChange:
    """An entry of the stream. Raises one of UNUSABLE."""
    change = _decoder.decode(fields[1])
    for name, fact in change.facts.items():
        msgspec.convert(fact, KINDS.get(name, Fact))
    return change


def hand_over(apply: Callable[[Sequence[ItemChange]], None], changes: Sequence[ItemChange]) -> None:
    """Whichever change cannot be applied is told and left out; the others are applied."""
    if not changes:
        return
    try:
        apply(changes)
    except Exception:
        if len(changes) == 1:
            log.exception("the change of item %r cannot be applied", changes[0].item_id)
            return
        for one in changes:
            hand_over(apply, [one])
