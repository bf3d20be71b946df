"""Events become features: out of the stream, into Feast's layout, exactly once. Reads top to bottom.

A batch of entries is taken for the consumer group. Item popularity goes out first: adding an event twice adds it once,
so a crash after it costs nothing. Then the users: history and events are put together, the features are computed by the
functions that training uses, and one script writes history and features and takes the entries off the stream. Another
consumer that wrote the same user in between makes the script refuse, and the user is read again. What a dead consumer
had taken is claimed by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from features.apply import Write, apply_command, count_commands, newest_command
from features.errors import FeatureStoreError, WrongType
from features.events import Event, encode_event
from features.group import BATCH, Entry, Member
from features.keys import Keys
from features.layout import encode_timestamp, key_maker
from features.liveviews import (
    ACTIVITY,
    ITEM_PRICE,
    RECENT,
    STAMPS,
    Feature,
    encoded,
    features,
    paid,
    price,
    time_of,
)
from features.misfits import misfits
from features.pipeline import Pipeline, encode, together
from features.userstate import UserState, state_of

log = logging.getLogger(__name__)

TURN = 8
"""Users computed before the event loop may do something else: about a millisecond."""
USERS = 16
"""Users in one script call: Redis serves nobody else meanwhile."""
HOT = 10_000
"""Users who are remembered from one batch to the next; whom another wrote meanwhile, the script refuses."""
TRIES = 20
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(slots=True)
class User:
    """A user as last read or written: their history, and of the two views in the store the event times (as they stand
    there, and in microseconds) and, where we wrote them, the values."""

    state: UserState
    stamps: list[bytes | None]
    times: list[int]
    values: dict[str, dict[str, Feature]] = field(default_factory=dict)


class Consumer:
    """One member of the group. Several may run, in any number of processes.

    `claim_after_s`: how long an entry may lie with another consumer before that one counts as dead. That one may only
    be slow, and little is lost by it: the scripts refuse to write over a version that another wrote meanwhile, and an
    event's mark counts it once, so what two do is done once. Whoever waits for a dead one's entries is a shopper.
    """

    def __init__(self, pipeline: Pipeline, project: str, *, claim_after_s: float = 1.0, block_s: float = 0.5) -> None:
        self.pipeline, self.keys = pipeline, Keys(project)
        self.group = Member(pipeline, self.keys, claim_after_s=claim_after_s, block_s=block_s)
        self.user_key, self.item_key = key_maker(project, "user_id"), key_maker(project, "item_id")
        self.claim_after_s, self.block_s = claim_after_s, block_s
        self.consumed = 0
        self.hot: dict[str, User] = {}
        self.task: asyncio.Task[None] | None = None
        self.taking: asyncio.Task[list[Entry]] | None = None
        self.stopping = False

    @property
    def unusable(self) -> int:
        """How many entries went to the stream of the dead."""
        return self.group.unusable

    def start(self) -> None:
        self.task = asyncio.create_task(self.run())

    async def stop(self) -> None:
        """Ends after what is in hand; what takes longer than `block_s` and a second is for the next consumer."""
        self.stopping = True
        if self.task is not None:
            await asyncio.wait({self.task}, timeout=self.block_s + 1.0)
            running = [one for one in (self.task, self.taking) if one is not None]
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        await self.group.leave()

    async def run(self) -> None:
        """Consumes until it is stopped. A store that is gone is waited for."""
        failures, ready, claimed_at = 0, False, 0.0
        loop = asyncio.get_running_loop()
        while not self.stopping or self.taking is not None:
            try:
                if not ready:
                    await self.group.join()
                    ready = True
                claimed: list[Entry] = []
                if loop.time() - claimed_at >= self.claim_after_s / 2:
                    began, claimed = loop.time(), await self.group.claim()
                    await self.consume(claimed)
                    if len(claimed) < BATCH:  # else there is more
                        claimed_at = began
                # What we took long ago we may just have claimed of ourselves.
                done = {entry_id for entry_id, _ in claimed}
                await self.consume([one for one in await self.taken() if one[0] not in done])
                failures = 0
            except Exception as error:
                ready = False  # a store that lost its data has no group either
                if not isinstance(error, FeatureStoreError):
                    log.exception("events wait")  # a mistake of ours: it must be seen, and end nothing
                elif failures == 0:
                    log.warning("events wait: %s", error)
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1

    async def taken(self) -> list[Entry]:
        """The next entries: those that were asked for while the last ones were written."""
        self.ask()
        try:
            return await self.taking if self.taking is not None else []
        finally:
            self.taking = None

    def ask(self) -> None:
        """Has the next entries taken meanwhile."""
        if self.taking is None and not self.stopping:
            self.taking = asyncio.create_task(self.group.take())

    async def consume(self, entries: Sequence[Entry]) -> None:
        """Features of everyone whom these entries are about. An entry that cannot be worked with, because of us or of
        its user's or item's keys, loses nobody else's: what fails together is tried by halves, down to that one.

        Raises FeatureStoreError where the store as a whole is at fault.
        """
        if not entries:
            return
        try:
            await self.work(entries)
        except FeatureStoreError as error:
            if not isinstance(error, WrongType):
                raise
            await self.narrow(entries, error)
        except Exception as error:
            log.exception("events cannot be worked with")  # a mistake of ours: it must be seen
            await self.narrow(entries, error)

    async def narrow(self, entries: Sequence[Entry], error: Exception) -> None:
        if len(entries) == 1:
            await self.put_aside(*entries[0], error)
            return
        entries = sorted(entries, key=lambda one: one[1].user_id)  # so that one user's are soon among themselves
        middle = len(entries) // 2
        await self.consume(entries[:middle])
        await self.consume(entries[middle:])

    async def put_aside(self, entry_id: bytes, event: Event, error: Exception) -> None:
        """The dead keep it, with the reason. Where its item's keys are at fault the user's features still hold it, and
        the other way round."""
        why = f"user {event.user_id!r}, item {event.item_id!r}: {error}"
        if isinstance(error, WrongType):
            if not (found := await misfits(self.pipeline, self.keys.project, event)):
                raise error  # some key that all share: nothing can go on before it is mended
            why = f"user {event.user_id!r}, item {event.item_id!r}: {'; '.join(found)}"
        await self.group.put_aside(entry_id, (b"e", encode_event(event)), why)
        if isinstance(error, WrongType):
            with contextlib.suppress(WrongType):
                await self.work([(entry_id, event)], items=False)
            with contextlib.suppress(WrongType):
                await self.count([event])
        await self.group.finish(entry_id)

    async def work(self, entries: Sequence[Entry], *, items: bool = True) -> None:
        """Puts the entries into the features, those of their `items` too."""
        by_user: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            by_user[entry[1].user_id].append(entry)
        prices, users = await together(self.prices(entries if items else ()), self.known(list(by_user)))
        # What follows leaves in one write, in this order, so that the server makes it durable in one go.
        events = [event for _, event in entries]
        commands = count_commands(self.keys, self.item_key, events) if items else []
        counted = [self.pipeline.execute(one) for one in commands]
        told = self.pipeline.execute(newest_command(self.keys, events))
        running: list[asyncio.Future[list[int]]] = []
        writes: list[Write] = []
        for number, (user_id, user) in enumerate(users.items(), 1):
            writes.append(self.write(user_id, user, by_user[user_id], prices))
            if len(writes) == USERS or number == len(users):
                running.append(self.pipeline.execute(apply_command(self.keys.events, STAMPS, writes)))
                writes = []
            if number % TURN == 0 and number < len(users):
                await asyncio.sleep(0)
        self.ask()
        replies = await together(*running, *counted, self.heard(told))
        done: list[list[int]] = replies[: len(running)]
        for (user_id, user), written in zip(users.items(), chain.from_iterable(done), strict=True):
            if written:
                self.remember(user_id, user)
            else:
                await self.again(user_id, by_user[user_id], prices)
        self.consumed += len(entries)

    async def count(self, events: Sequence[Event]) -> None:
        await together(*(self.pipeline.execute(one) for one in count_commands(self.keys, self.item_key, events)))

    async def heard(self, told: asyncio.Future[Any]) -> None:
        """Those who watch freshness may have to do without; nobody's features wait for it."""
        try:
            await told
        except WrongType as error:
            log.error("the views' newest event times are not kept: %s", error)

    async def prices(self, entries: Sequence[Entry]) -> dict[str, float]:
        """The price of each item bought by an event that does not say what was paid, as Feast's store has it."""
        items = list(dict.fromkeys(one.item_id for _, one in entries if one.kind == "purchase" and one.value is None))
        replies = await asyncio.gather(
            *(self.pipeline.execute(encode(b"HGET", self.item_key(item), ITEM_PRICE)) for item in items)
        )
        return {item: price(raw) for item, raw in zip(items, replies, strict=True) if raw}

    async def known(self, user_ids: Sequence[str]) -> dict[str, User]:
        """The users as they were last written: by us, else as the store has them."""
        cold = [one for one in user_ids if one not in self.hot]
        commands = [
            command
            for one in cold
            for command in (encode(b"GET", self.keys.user(one)), encode(b"HMGET", self.user_key(one), *STAMPS))
        ]
        replies = await asyncio.gather(*(self.pipeline.execute(command) for command in commands))
        found = {
            one: User(state_of(one, raw), there, [time_of(stamp) for stamp in there])
            for one, raw, there in zip(cold, replies[::2], replies[1::2], strict=True)
        }
        # Out of the memory until the write is known to have succeeded.
        return {one: found[one] if one in found else self.hot.pop(one) for one in user_ids}

    def remember(self, user_id: str, user: User) -> None:
        self.hot[user_id] = user
        if len(self.hot) > HOT:
            del self.hot[next(iter(self.hot))]

    def write(self, user_id: str, user: User, entries: Sequence[Entry], prices: Mapping[str, float]) -> Write:
        """What puts these entries into the user's history and features, and takes them off the stream."""
        state = user.state
        held = [stamp or b"" for stamp in user.stamps]
        guard, new, fields = state.guard(), b"", list[bytes]()
        if state.add((event, paid(event, prices)) for _, event in entries):
            new, newest = state.encode(), state.newest
            stamp = encode_timestamp(newest)
            for place, view in enumerate((ACTIVITY, RECENT)):
                if user.times[place] <= newest:
                    before, user.values[view] = user.values.get(view, {}), features(view, state)
                    for name, value in user.values[view].items():
                        if before.get(name) != value:
                            fields += encoded(view, name, value)
                    fields += (STAMPS[place], stamp)
                    user.stamps[place], user.times[place] = stamp, newest
        ids = [entry_id for entry_id, _ in entries]
        return Write(self.keys.user(user_id), self.user_key(user_id), guard, new, held, ids, fields)

    async def again(self, user_id: str, entries: Sequence[Entry], prices: Mapping[str, float]) -> None:
        """One user whom another consumer, or a materialization, wrote since we read them."""
        for _ in range(TRIES):
            user = (await self.known([user_id]))[user_id]
            write = self.write(user_id, user, entries, prices)
            (written,) = await self.pipeline.execute(apply_command(self.keys.events, STAMPS, [write]))
            if written:
                self.remember(user_id, user)
                return
        raise FeatureStoreError(f"user {user_id!r} was written by others {TRIES} times in a row")
