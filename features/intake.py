"""The door for events: what is accepted is in the stream, once, and the reply comes after that."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from features.events import Event, encode_event
from features.keys import Keys
from features.pipeline import Pipeline, encode
from features.scripts import ACCEPT

CHUNK = 200
"""Events in one script call: Redis serves nobody else meanwhile, and this many take it about a millisecond."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """For each event whether it was new (False: a duplicate), and the token of all that is accepted so far."""

    new: list[bool]
    token: str


class Intake:
    """Puts events into the stream of one Feast project.

    An event id counts once: sent again within `remember_s` it is a duplicate here; later than that, and within 30 days,
    the consumer still finds it in the user's history. `max_backlog` bounds the stream: past it nothing is accepted.
    """

    def __init__(
        self, pipeline: Pipeline, project: str, *, remember_s: float = 172_800.0, max_backlog: int = 1_000_000,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.pipeline, self.keys, self.now = pipeline, Keys(project), now
        self.remember_s, self.max_backlog = remember_s, max_backlog

    async def accept(self, events: Sequence[Event]) -> Accepted:
        """Raises FeatureStoreError when the store does not take them; those of earlier chunks are then in, and are
        duplicates when they are sent again."""
        new: list[bool] = []
        token = ""
        for start in range(0, len(events), CHUNK):
            *ids, last = await self.pipeline.execute(self.command(events[start : start + CHUNK]), retry=False)
            new += [one is not None for one in ids]
            token = last.decode()
        return Accepted(new, token)

    def command(self, events: Sequence[Event]) -> bytes:
        # An id lies in the set of its period, and is looked for in the one before, too.
        period = int(self.now() / self.remember_s)
        keys = (self.keys.events, self.keys.seen(period), self.keys.seen(period - 1))
        parts = [part for event in events for part in (event.event_id.encode(), encode_event(event))]
        # Nobody looks for it after the next period; a minute more for clocks that differ.
        lifetime = b"%d" % int((period + 2) * self.remember_s - self.now() + 60)
        most = b"%d" % self.max_backlog
        return encode(b"EVAL", ACCEPT, b"3", *keys, lifetime, most, *parts)


async def durability(pipeline: Pipeline) -> str | None:
    """What a power cut could cost, in a line; None where every write is on disk before its reply.

    Raises FeatureStoreError where the server does not say.
    """
    found = {}
    for name in (b"appendonly", b"appendfsync"):
        reply = await pipeline.execute(encode(b"CONFIG", b"GET", name))
        found[name.decode()] = reply[1].decode() if len(reply) == 2 else "unknown"
    if found == {"appendonly": "yes", "appendfsync": "always"}:
        return None
    said = ", ".join(f"{name} {value}" for name, value in found.items())
    return f"accepted events may be lost with Redis's power ({said}); appendonly yes and appendfsync always keep them"
