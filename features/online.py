"""The online reader: a user's features from Feast's Redis hashes, one HMGET an entity for all views.

Requests that arrive while a read is in flight go out together as the next pipeline, so under load a round trip is
shared by many and, alone, a request waits for nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio
import redis.exceptions

from features.errors import FeatureStoreError, FeatureStoreTimeout
from features.layout import decode_timestamp, decode_value, feature_field, key_maker, timestamp_field
from features.user import UserFeatures, ViewState


@dataclass(frozen=True, slots=True)
class View:
    """One feature view as the reader needs it: its features, and its TTL in seconds (None: no limit)."""

    name: str
    features: tuple[str, ...]
    max_age_s: float | None


class ReadPlan:
    """Which hash fields to ask for and how to read the reply: all views of one entity, fixed at start."""

    def __init__(self, project: str, join_key: str, views: Sequence[View]) -> None:
        self.views = tuple(views)
        self.key = key_maker(project, join_key)
        self.fields = [field for view in views for field in self._fields(view)]
        self.references = [[f"{view.name}:{name}" for name in view.features] for view in views]

    def _fields(self, view: View) -> list[bytes]:
        return [timestamp_field(view.name), *(feature_field(view.name, name) for name in view.features)]

    def decode(self, reply: Sequence[bytes | None], now: float) -> UserFeatures:
        """One HMGET reply -> features, at `now` seconds since the epoch. A value that is no value spoils its view."""
        values: dict[str, Any] = {}
        states: dict[str, ViewState] = {}
        at = 0
        for view, references in zip(self.views, self.references, strict=True):
            stamp, raw = reply[at], reply[at + 1 : at + 1 + len(references)]
            at += 1 + len(references)
            states[view.name], found = self._view(view, references, stamp, raw, now)
            values.update(found)
        return UserFeatures(values, states)

    def _view(
        self, view: View, references: list[str], stamp: bytes | None, raw: Sequence[bytes | None], now: float
    ) -> tuple[ViewState, dict[str, Any]]:
        if stamp is None:
            return ViewState("missing", None), {}
        try:
            age = max(0.0, now - decode_timestamp(stamp))
            if view.max_age_s is not None and age > view.max_age_s:
                return ViewState("outside_max_age", age), {}
            found = {name: decode_value(one) for name, one in zip(references, raw, strict=True) if one is not None}
        except (ValueError, OverflowError, OSError):  # the latter two from a time that no datetime holds
            return ViewState("unreadable", None), {}
        return ViewState("present", age), found

    def nothing(self) -> UserFeatures:
        """The features of a user of whom nothing is known."""
        return UserFeatures({}, {view.name: ViewState("missing", None) for view in self.views})


class OnlineReader:
    """Coalesces concurrent reads into pipelines on one connection.

    `stall_s` is how long a pipeline may take before its connection is given up: a store that accepts and never answers
    would otherwise hold every later read behind it. A caller's own deadline is the caller's to keep.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        plan: ReadPlan,
        *,
        stall_s: float = 1.0,
        max_pipeline: int = 64,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.client, self.plan, self.stall_s, self.max_pipeline, self.now = client, plan, stall_s, max_pipeline, now
        self.waiting: list[tuple[bytes, asyncio.Future[UserFeatures]]] = []
        self.pump: asyncio.Task[None] | None = None

    async def ping(self) -> None:
        """Raises FeatureStoreError when the store does not answer."""
        try:
            async with asyncio.timeout(self.stall_s):
                await self.client.ping()  # type: ignore[misc]
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            raise FeatureStoreError(f"Redis does not answer: {error or 'time ran out'}") from error

    async def read(self, user_id: str) -> UserFeatures:
        """All views of one user. Raises FeatureStoreError; an unknown user is no error, every view is `missing`."""
        future: asyncio.Future[UserFeatures] = asyncio.get_running_loop().create_future()
        self.waiting.append((self.plan.key(user_id), future))
        if self.pump is None or self.pump.done():
            self.pump = asyncio.create_task(self._pump())
        return await future

    def nothing(self) -> UserFeatures:
        """The features of a user of whom nothing is known."""
        return self.plan.nothing()

    async def close(self) -> None:
        """Ends what is in flight and closes the connection."""
        if self.pump is not None:
            self.pump.cancel()
            await asyncio.gather(self.pump, return_exceptions=True)
        for _, future in self.waiting:
            future.cancel()
        await self.client.aclose()

    async def _pump(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting[: self.max_pipeline], self.waiting[self.max_pipeline :]
            batch = [one for one in batch if not one[1].done()]
            if batch:
                await self._read_batch(batch)

    async def _read_batch(self, batch: list[tuple[bytes, asyncio.Future[UserFeatures]]]) -> None:
        try:
            async with asyncio.timeout(self.stall_s):
                pipeline = self.client.pipeline(transaction=False)
                for key, _ in batch:
                    pipeline.hmget(key, self.plan.fields)  # type: ignore[arg-type]
                replies = await pipeline.execute(raise_on_error=False)
        except TimeoutError:
            await self.client.connection_pool.disconnect(inuse_connections=True)
            self._fail(batch, FeatureStoreTimeout(f"Redis did not answer in {self.stall_s:g} s"))
        except (redis.exceptions.RedisError, OSError) as error:
            self._fail(batch, FeatureStoreError(f"Redis: {error}"))
        except BaseException as error:
            # Nobody else would tell the callers, who would wait for ever.
            self._fail(batch, FeatureStoreError(f"the reader stopped: {error!r}"))
            raise
        else:
            self._settle(batch, replies)

    def _settle(self, batch: list[tuple[bytes, asyncio.Future[UserFeatures]]], replies: list[Any]) -> None:
        now = self.now()
        for (_, future), reply in zip(batch, replies, strict=True):
            if future.done():
                continue
            if isinstance(reply, redis.exceptions.RedisError):
                future.set_exception(FeatureStoreError(f"Redis: {reply}"))
            else:
                future.set_result(self.plan.decode(reply, now))

    @staticmethod
    def _fail(batch: list[tuple[bytes, asyncio.Future[UserFeatures]]], error: FeatureStoreError) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)


def connect(host: str, port: int, **options: Any) -> redis.asyncio.Redis:
    """A client for the reader. RESP2, because redis-py's RESP3 raises on an idle connection that the server closed;
    no socket timeout, because it can swallow a cancellation on Python 3.11: deadlines are asyncio's.
    """
    retry = redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 1)
    return redis.asyncio.Redis(
        host=host, port=port, protocol=2, socket_timeout=None, socket_connect_timeout=None, retry=retry, **options
    )
