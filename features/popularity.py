"""Items' live statistics, on their way from Feast's hashes to every worker's item table, about a second late.

The script that counts an item puts it into a sorted set, by a time of the server that only grows. A worker reads the
statistics of all items once, and from then on those of the items that came into the set since it last looked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from features.errors import FeatureStoreError
from features.keys import Keys
from features.layout import decode_timestamp, decode_value, feature_field, key_maker, timestamp_field
from features.liveviews import COUNTS, STATS
from features.pipeline import Pipeline, encode

log = logging.getLogger(__name__)

NAMES = tuple(name for name, _, _ in COUNTS)
FIELDS = (timestamp_field(STATS), *(feature_field(STATS, name) for name in NAMES))
MOST = 500
"""Items handed over together, and asked for in one look."""
CHUNK = 20
"""Items read at a time: the event loop that answers shoppers must not be held for a millisecond."""
UNSEEN_S = 300.0
"""Who has not looked for so long reads all again: what came in since may have left the set, which keeps ten minutes."""
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Counted:
    """What is counted of an item, by feature, as of `at` (seconds since the epoch)."""

    item_id: str
    at: float
    counts: dict[str, int]


Apply = Callable[[Sequence[Counted]], None]


class Popularity:
    """Follows the counts of one Feast project's items. `ids` goes through those that the models know now: a million of
    them are never a list."""

    def __init__(
        self, pipeline: Pipeline, project: str, ids: Callable[[], Iterable[str]], *, every_s: float = 1.0
    ) -> None:
        self.pipeline, self.ids, self.every_s = pipeline, ids, every_s
        self.counted, self.entity = Keys(project).counted, key_maker(project, "item_id")
        self.task: asyncio.Task[None] | None = None
        self.loaded = asyncio.Event()  # set once all counts so far were handed over
        self.again = False

    async def follow(self, apply: Apply) -> None:
        """Hands over the counts of all items, then of those that are counted, until cancelled. Waits for a store that
        is gone."""
        failures, since, looked = 0, b"", 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                if not since or self.again or loop.time() - looked > UNSEEN_S:
                    self.again = False
                    since, looked = await self.newest(), loop.time()
                    await self.hand_over(self.ids(), apply)
                    self.loaded.set()
                now = loop.time()
                ids, until = await self.after(since)
                await self.hand_over(self.ids() if "" in ids else ids, apply)
                since, looked, failures = until, now, 0
                if len(ids) < MOST:
                    await asyncio.sleep(self.every_s)
            except FeatureStoreError as error:
                if failures == 0:
                    log.warning("items' popularity waits: %s", error)
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1

    def start_over(self) -> None:
        """Has `follow` hand over the counts of all items again."""
        self.again = True

    async def newest(self) -> bytes:
        """The time of the item that was counted last."""
        found = await self.pipeline.execute(encode(b"ZRANGE", self.counted, b"-1", b"-1", b"WITHSCORES"))
        return bytes(found[1]) if found else b"0"

    async def after(self, since: bytes) -> tuple[list[str], bytes]:
        """The items counted after `since`, at most MOST, and the time of the last. `""` stands for all items."""
        command = encode(
            b"ZRANGE", self.counted, b"(" + since, b"+inf", b"BYSCORE", b"LIMIT", b"0", b"%d" % MOST, b"WITHSCORES"
        )
        found = await self.pipeline.execute(command)
        return [one.decode() for one in found[::2]], bytes(found[-1]) if found else since

    async def hand_over(self, ids: Iterable[str], apply: Apply) -> None:
        left = iter(ids)
        while some := list(islice(left, MOST)):
            if found := await self.read(some):
                apply(found)

    async def read(self, ids: Sequence[str]) -> list[Counted]:
        """The counts of those that have any that can be read."""
        found = []
        for start in range(0, len(ids), CHUNK):
            some = ids[start : start + CHUNK]
            commands = [encode(b"HMGET", self.entity(one), *FIELDS) for one in some]
            # Gathered, because a lost connection fails all of them, and each must be heard.
            replies = await asyncio.gather(*(self.pipeline.execute(one) for one in commands))
            found += [counted(one, reply) for one, reply in zip(some, replies, strict=True)]
        return [one for one in found if one is not None]

    def start(self, apply: Apply) -> None:
        self.task = asyncio.create_task(self.follow(apply))

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.pipeline.close()


def counted(item_id: str, reply: Sequence[Any]) -> Counted | None:
    """None where the store has no row of the item, or one that cannot be read."""
    stamp, *raw = reply
    if stamp is None:
        return None
    try:
        values = {name: decode_value(one) for name, one in zip(NAMES, raw, strict=True) if one is not None}
        return Counted(item_id, decode_timestamp(stamp), {k: v for k, v in values.items() if isinstance(v, int)})
    except ValueError:
        return None
