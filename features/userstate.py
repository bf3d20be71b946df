"""What a user's real-time features are computed from: their events of the last 30 days, and those earlier that count.

The features are those of `features.functions` at the newest event, the ones that training computes from the same
history, so a value that is served is the value that was learned from.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable
from typing import Any

import msgspec

from features.events import Event, mark
from features.functions import PURCHASED, RECENT, WINDOWS, activity_now, recent_now

log = logging.getLogger(__name__)

KEPT = 5_000
"""The most events kept of one user: a crawler with more is counted short, and harms nobody else."""

SPARE = 2 * (RECENT + PURCHASED)
"""Events older than every window that may stay until it is worth looking for those that count."""

VERSION = struct.Struct(">Q")
LONGEST = max(WINDOWS.values())


class History(msgspec.Struct, array_like=True):
    """A user's events as parallel lists in order of (time, mark): times in microseconds, kinds, item ids, what each
    event paid, and the mark of its id (0: an event of the batch, which has none)."""

    times: list[int] = []
    kinds: list[str] = []
    items: list[str] = []
    spend: list[float] = []
    marks: list[int] = []


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(History)


class UserState:
    """One user's history with its version, which grows by one with each write and tells two writers apart."""

    def __init__(self, history: History | None = None, version: int = 0) -> None:
        self.history, self.version = history or History(), version
        self.stored = VERSION.pack(version) if version else b""

    @classmethod
    def decode(cls, data: bytes | None) -> UserState:
        """Raises ValueError when it is none."""
        if data is None:
            return cls()
        try:
            history, version = _decoder.decode(data[VERSION.size :]), VERSION.unpack_from(data)[0]
        except (msgspec.MsgspecError, struct.error) as error:
            raise ValueError(f"no history of a user: {error}") from error
        if len({len(column) for column in columns(history)}) != 1:
            raise ValueError("no history of a user: its columns differ in length")
        return cls(history, version)

    @classmethod
    def anew(cls, raw: bytes) -> UserState:
        """An empty history in the place of one that cannot be read."""
        state = cls()
        state.stored = raw[: VERSION.size]
        return state

    def guard(self) -> bytes:
        """What the stored history must begin with for this one to take its place; empty: there must be none."""
        return self.stored

    def encode(self) -> bytes:
        """The next version, which is this one's from now on."""
        self.version += 1
        self.stored = VERSION.pack(self.version)
        return self.stored + _encoder.encode(self.history)

    def add(self, events: Iterable[tuple[Event, float]]) -> bool:
        """Takes in events, each with what it paid, whatever their order; one that is in already counts once.

        Returns whether anything was new.
        """
        old = self.history
        known = set(old.marks)
        rows = []
        for event, spend in events:
            if (its := mark(event.event_id)) not in known:
                known.add(its)
                rows.append((event.at, event.kind, event.item_id, spend, its))
        if not rows:
            return False
        in_order = bool(old.times) and min(row[0] for row in rows) > old.times[-1]
        if in_order and len(rows) == 1:
            for column, value in zip(columns(old), rows[0], strict=True):
                column.append(value)
        else:
            rows += zip(*columns(old), strict=True)
            # The batch's events of one instant keep their order (mark 0), before those that came as a stream.
            rows.sort(key=lambda row: (row[0], row[4]))
            self.history = History(*(list(column) for column in zip(*rows, strict=True)))
        self.trim()
        return True

    def trim(self) -> None:
        """Drops what no feature can depend on any more, once it is more than a few events."""
        h = self.history
        since = h.times[-1] - LONGEST
        if len(h.times) <= KEPT and (len(h.times) <= SPARE or h.times[SPARE] > since):
            return
        needed = newest_distinct(h)
        first = max(len(h.times) - KEPT, 0)
        kept = [i for i in range(len(h.times)) if i in needed or (h.times[i] > since and i >= first)]
        self.history = History(*([column[i] for i in kept] for column in columns(h)))

    @property
    def newest(self) -> int:
        """The time of the newest event, microseconds."""
        return self.history.times[-1]

    def activity(self) -> dict[str, int | float]:
        """The features of `user_activity` at the newest event."""
        h = self.history
        return activity_now(h.times, h.kinds, h.spend, self.newest)

    def recent(self) -> dict[str, list[str]]:
        """The features of `user_recent` at the newest event."""
        h = self.history
        seen, bought = recent_now(h.items, [kind == "purchase" for kind in h.kinds])
        return {"item_ids": seen, "purchased_item_ids": bought}


def state_of(user_id: str, raw: bytes | None) -> UserState:
    """A user's stored history. One that cannot be read starts anew: what it held is lost already, what comes is not."""
    try:
        return UserState.decode(raw)
    except ValueError as error:
        log.error("user %r: %s; their history starts anew", user_id, error)
        assert raw is not None
        return UserState.anew(raw)


def columns(history: History) -> tuple[list[Any], ...]:
    return history.times, history.kinds, history.items, history.spend, history.marks


def newest_distinct(history: History) -> set[int]:
    """The places of the last touch of each of the last RECENT items, and of each of the last PURCHASED bought ones."""
    seen: dict[str, int] = {}
    bought: dict[str, int] = {}
    for place in range(len(history.times) - 1, -1, -1):
        item = history.items[place]
        if len(seen) < RECENT:
            seen.setdefault(item, place)
        if len(bought) < PURCHASED and history.kinds[place] == "purchase":
            bought.setdefault(item, place)
        if len(seen) == RECENT and len(bought) == PURCHASED:
            break
    return {*seen.values(), *bought.values()}
