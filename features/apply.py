"""The commands in which events become features: what is written of users, and of items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from features.events import Event
from features.keys import GROUP, Keys
from features.liveviews import ACTIVITY, POPULARITY_HEAD, RECENT, STATS
from features.pipeline import encode
from features.scripts import APPLY, POPULARITY

ITEMS = 32
"""Items in one script call: Redis serves nobody else meanwhile."""


@dataclass(slots=True)
class Write:
    """One user's history (`state`, empty: it stays) and features (`fields`: field, value, ...), and the entries of the
    stream that are then done with. Nothing of it happens unless the store holds `guard` and `held` still.
    """

    state_key: bytes
    hash_key: bytes
    guard: bytes
    state: bytes
    held: Sequence[bytes] = ()
    entry_ids: Sequence[bytes] = ()
    fields: Sequence[bytes] = field(default_factory=list)


def apply_command(stream: bytes, held_fields: Sequence[bytes], writes: Sequence[Write]) -> bytes:
    """Answered by 1 for each write that was done and 0 for each that was not. `held_fields` name what `held` says."""
    keys = [key for one in writes for key in (one.state_key, one.hash_key)]
    said: list[bytes] = []
    for one in writes:
        said += (one.guard, one.state, *one.held, b"%d" % len(one.entry_ids), *one.entry_ids)
        said += (b"%d" % len(one.fields), *one.fields)
    head = (b"%d" % (len(keys) + 1), stream, *keys, GROUP.encode(), b"%d" % len(held_fields), *held_fields)
    return encode(b"EVAL", APPLY, *head, *said)


def count_commands(keys: Keys, item_key: Callable[[str], bytes], events: Sequence[Event]) -> list[bytes]:
    """What counts the items that these events are about."""
    by_item: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_item[event.item_id].append(event)
    items = list(by_item.items())
    return [count_command(keys, item_key, items[start : start + ITEMS]) for start in range(0, len(items), ITEMS)]


def newest_command(keys: Keys, events: Sequence[Event]) -> bytes:
    """What tells those who watch freshness how far the views are."""
    newest = b"%d" % max(event.at for event in events)
    return encode(
        b"ZADD", keys.newest, b"GT", *(part for view in (ACTIVITY, RECENT, STATS) for part in (newest, view.encode()))
    )


def count_command(keys: Keys, item_key: Callable[[str], bytes], items: Sequence[tuple[str, Sequence[Event]]]) -> bytes:
    """Adds the events of at most ITEMS items to what is counted of them. Adding an event twice adds it once."""
    theirs = [key for item, _ in items for key in (keys.item(item), keys.bought(item), item_key(item))]
    where = [keys.counted, *theirs]
    counted: list[bytes] = []
    for item, its_events in items:
        counted += (item.encode(), b"%d" % len(its_events))
        for one in its_events:
            counted += [b"%d" % one.at, one.event_id.encode(), b"1" if one.kind == "purchase" else b"0"]
    return encode(b"EVAL", POPULARITY, b"%d" % len(where), *where, *POPULARITY_HEAD, *counted)
