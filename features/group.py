"""A consumer's place in the group that shares the event stream: what it takes, and what it claims of the dead."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from typing import Any

from features.errors import FeatureStoreError
from features.events import Event, decode_event
from features.keys import GROUP, Keys
from features.pipeline import Pipeline, encode
from features.scripts import TIDY

log = logging.getLogger(__name__)

Entry = tuple[bytes, Event]
"""A stream id and the event that stands there."""

BATCH = 256
DEAD_S = 600.0
"""A member that lives asks for entries at least once in `block_s` and the time that a batch takes."""

LEAVE_S = 1.0


class Member:
    """One member of a project's group, under a name of its own.

    `claim_after_s`: how long an entry may lie with another member before that one counts as dead. `block_s`: how long
    `take` waits for an entry.
    """

    def __init__(self, pipeline: Pipeline, keys: Keys, *, claim_after_s: float, block_s: float) -> None:
        self.pipeline, self.keys = pipeline, keys
        self.stream = pipeline.twin()  # it waits for entries, and nothing may wait behind it
        self.name = secrets.token_hex(8).encode()
        self.claim_after_s, self.block_s = claim_after_s, block_s
        self.unusable = 0

    async def join(self) -> None:
        """Makes the stream and the group where there are none, and removes the names of the long dead."""
        try:
            await self.pipeline.execute(
                encode(b"XGROUP", b"CREATE", self.keys.events, GROUP.encode(), b"0", b"MKSTREAM")
            )
        except FeatureStoreError as error:
            if "BUSYGROUP" not in str(error):
                raise
        await self.tidy()

    async def tidy(self, leaving: bytes = b"") -> None:
        """Each process brings a name of its own; those of the long dead go, and the one that is leaving."""
        dead = b"%d" % int(DEAD_S * 1e3)
        await self.pipeline.execute(encode(b"EVAL", TIDY, b"1", self.keys.events, GROUP.encode(), leaving, dead))

    async def take(self) -> list[Entry]:
        """The next entries that nobody has, waiting `block_s` for one."""
        command = encode(
            b"XREADGROUP", b"GROUP", GROUP.encode(), self.name, b"COUNT", b"%d" % BATCH,
            b"BLOCK", b"%d" % int(self.block_s * 1e3), b"STREAMS", self.keys.events, b">",
        )  # fmt: skip
        reply = await self.stream.execute(command, retry=False)
        return await self.usable(reply[0][1] if reply else [])

    async def claim(self) -> list[Entry]:
        """Entries that a consumer took and did not finish: another's that died, or our own that failed."""
        command = encode(
            b"XAUTOCLAIM", self.keys.events, GROUP.encode(), self.name, b"%d" % int(self.claim_after_s * 1e3), b"0-0",
            b"COUNT", b"%d" % BATCH,
        )  # fmt: skip
        return await self.usable((await self.pipeline.execute(command, retry=False))[1])

    async def usable(self, raw: Sequence[Any]) -> list[Entry]:
        """Decodes; what is no event goes to the stream of the dead, where a person can look at it."""
        entries = []
        for entry_id, fields in raw:
            try:
                entries.append((entry_id, decode_event(fields[1])))
            except (ValueError, TypeError, IndexError) as error:
                await self.bury(entry_id, fields, str(error))
        return entries

    async def bury(self, entry_id: bytes, fields: Sequence[bytes] | None, why: str) -> None:
        """Has nobody try this entry again: a person may look at it in the stream of the dead."""
        await self.put_aside(entry_id, fields, why)
        await self.finish(entry_id)

    async def put_aside(self, entry_id: bytes, fields: Sequence[bytes] | None, why: str) -> None:
        self.unusable += 1
        log.error("entry %s of the event stream cannot be used: %s", entry_id.decode(), why)
        await self.pipeline.execute(encode(b"XADD", self.keys.dead, b"*", b"why", why.encode(), *(fields or ())))

    async def finish(self, entry_id: bytes) -> None:
        await self.pipeline.execute(encode(b"XACK", self.keys.events, GROUP.encode(), entry_id))
        await self.pipeline.execute(encode(b"XDEL", self.keys.events, entry_id))

    async def leave(self) -> None:
        """After this nothing is taken in our name. What we still have is for others to claim."""
        await self.stream.close()  # first, or what it waits for could still come, and bring the name back
        with contextlib.suppress(FeatureStoreError, TimeoutError):
            await asyncio.wait_for(self.tidy(self.name), LEAVE_S)
        await self.pipeline.close()
