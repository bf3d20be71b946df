"""Whether events are in the features yet: for those who want to read what they wrote."""

from __future__ import annotations

import asyncio
import re

from features.errors import FeatureStoreError
from features.keys import Keys
from features.pipeline import Pipeline, encode

TOKEN = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)
EVERY_S = 0.002


def place(stream_id: str) -> tuple[int, int]:
    """A stream id as what it is ordered by."""
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)


class Applied:
    """Waits until the events up to a token (`features.intake`) are in the features.

    What is done with leaves the stream, so the oldest entry that is still there says how far the features are. All who
    wait share one question to Redis every 2 ms; nobody waiting, nobody asks.
    """

    def __init__(self, pipeline: Pipeline, project: str, *, every_s: float = EVERY_S) -> None:
        self.pipeline, self.every_s = pipeline, every_s
        self.oldest = encode(b"XRANGE", Keys(project).events, b"-", b"+", b"COUNT", b"1")
        self.waiting: dict[asyncio.Future[None], tuple[int, int]] = {}
        self.asking: asyncio.Task[None] | None = None

    def check(self, token: str) -> None:
        """Raises ValueError for what is no token. Asks nobody."""
        if not TOKEN.fullmatch(token):
            raise ValueError(f"{token[:50]!r} is no token")

    async def wait(self, token: str, timeout_s: float) -> bool:
        """Whether they are in within `timeout_s`. False also when the store does not answer. Raises ValueError for what
        is no token."""
        self.check(token)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting[future] = place(token)
        if self.asking is None:
            self.asking = asyncio.create_task(self._ask())
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except (TimeoutError, FeatureStoreError):
            return False
        finally:
            self.waiting.pop(future, None)
        return True

    async def _ask(self) -> None:
        try:
            while self.waiting:
                entries = await self.pipeline.execute(self.oldest)
                oldest = place(entries[0][0].decode()) if entries else None
                for future, wanted in list(self.waiting.items()):
                    if (oldest is None or oldest > wanted) and not future.done():
                        future.set_result(None)
                        del self.waiting[future]
                if self.waiting:
                    await asyncio.sleep(self.every_s)
        except FeatureStoreError as error:
            for future in self.waiting:
                if not future.done():
                    future.set_exception(error)
        finally:
            self.asking = None

    async def close(self) -> None:
        if self.asking is not None:
            self.asking.cancel()
            await asyncio.gather(self.asking, return_exceptions=True)
        await self.pipeline.close()
