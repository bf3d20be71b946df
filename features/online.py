"""The online reader: a user's features from Feast's Redis hashes, one HMGET an entity for all views.

The reads of one turn of the event loop leave in one write (`features.pipeline`), so under load a round trip is shared
by many and, alone, a request waits for nobody.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from features.layout import (
    FLOAT_SIZE,
    FLOAT_TAG,
    decode_float,
    decode_timestamp,
    decode_value,
    feature_field,
    key_maker,
    timestamp_field,
)
from features.pipeline import Pipeline, encode, hmget
from features.user import Reading, UserFeatures, ViewState

PING = encode(b"PING")


@dataclass(frozen=True, slots=True)
class View:
    """One feature view as the reader needs it: its features, and its TTL in seconds (None: no limit)."""

    name: str
    features: tuple[str, ...]
    max_age_s: float | None


class ReadPlan:
    """Which hash fields to ask for and how to read the reply: all views of one entity, fixed at start."""

    def __init__(self, project: str, join_key: str, views: Sequence[View]) -> None:
        self.project, self.join_key, self.views = project, join_key, tuple(views)
        self.key = key_maker(project, join_key)
        self.fields = [field for view in views for field in self._fields(view)]
        self.hmget = hmget(self.fields)
        self.references = [[f"{view.name}:{name}" for name in view.features] for view in views]

    def _fields(self, view: View) -> list[bytes]:
        return [timestamp_field(view.name), *(feature_field(view.name, name) for name in view.features)]

    def command(self, entity_id: str) -> bytes:
        """The HMGET of one entity, encoded."""
        return self.hmget(self.key(entity_id))

    def decode(self, reply: Sequence[bytes | None], now: float) -> UserFeatures:
        """One HMGET reply -> features, at `now` seconds since the epoch. A value that is no value spoils its view."""
        values: dict[str, Any] = {}
        states: dict[str, ViewState] = {}
        for view, references, stamp, raw in self._parts(reply):
            states[view.name], found = self._view(view, references, stamp, raw, now)
            values.update(found)
        return UserFeatures(values, states)

    def readings(self, reply: Sequence[bytes | None], now: float) -> list[Reading]:
        """One HMGET reply -> what a person wants to know of it: also the values that are too old to be used."""
        found = []
        for view, references, stamp, raw in self._parts(reply):
            state, _ = self._view(view, references, stamp, raw, now)
            at, values = None, dict[str, Any]()
            if stamp is not None and state.status != "unreadable":
                _, values = self._view(View(view.name, view.features, None), list(view.features), stamp, raw, now)
                at = decode_timestamp(stamp)
            found.append(Reading(view.name, state.status, at, state.age_s, view.max_age_s, values))
        return found

    def _parts(self, reply: Sequence[bytes | None]) -> Iterator[tuple[View, list[str], bytes | None, Sequence[Any]]]:
        """Each view with its features' references, its event time and its values, as they are in the reply."""
        at = 0
        for view, references in zip(self.views, self.references, strict=True):
            yield view, references, reply[at], reply[at + 1 : at + 1 + len(references)]
            at += 1 + len(references)

    def _view(
        self, view: View, references: list[str], stamp: bytes | None, raw: Sequence[bytes | None], now: float
    ) -> tuple[ViewState, dict[str, Any]]:
        if stamp is None:
            return ViewState("missing", None), {}
        try:
            age = max(0.0, now - decode_timestamp(stamp))
            if view.max_age_s is not None and age > view.max_age_s:
                return ViewState("outside_max_age", age), {}
            found = {
                name: decode_float(one, 1)[0] if len(one) == FLOAT_SIZE and one[0] == FLOAT_TAG else decode_value(one)
                for name, one in zip(references, raw, strict=True)
                if one is not None
            }
        except (ValueError, OverflowError, OSError):  # the latter two from a time that no datetime holds
            return ViewState("unreadable", None), {}
        return ViewState("present", age), found

    def nothing(self) -> UserFeatures:
        """The features of a user whom nobody looked up."""
        return UserFeatures({}, {view.name: ViewState("not_read", None) for view in self.views})


class OnlineReader:
    """Reads users' features. Concurrent reads share writes and replies of one `Pipeline`.

    What the store said of the last `remember` users read is kept, as it said it, for when it says nothing. `plan`
    may be replaced at any time: each reply is read by the plan that asked for it.
    """

    def __init__(
        self, pipeline: Pipeline, plan: ReadPlan, *, remember: int = 0, now: Callable[[], float] = time.time
    ) -> None:
        self.pipeline, self.plan, self.remember, self.now = pipeline, plan, remember, now
        self.said: OrderedDict[str, tuple[ReadPlan, tuple[bytes | None, ...]]] = OrderedDict()

    async def ping(self) -> None:
        """Raises FeatureStoreError when the store does not answer."""
        await self.pipeline.execute(PING)

    async def read(self, user_id: str) -> UserFeatures:
        """All views of one user. Raises FeatureStoreError; an unknown user is no error, every view is `missing`."""
        plan = self.plan
        reply = await self.pipeline.execute(plan.command(user_id))
        found = plan.decode(reply, self.now())
        if self.remember and found.known:
            self.said[user_id] = plan, tuple(reply)
            self.said.move_to_end(user_id)
            if len(self.said) > self.remember:
                self.said.popitem(last=False)
        return found

    def last_known(self, user_id: str) -> UserFeatures | None:
        """What the store said of a user when it was last read, with its age now; None where that is not remembered.

        A row that has become older than its view's max age since then is not used.
        """
        if user_id not in self.said:
            return None
        plan, reply = self.said[user_id]
        return plan.decode(reply, self.now())

    async def readings(self, user_id: str) -> list[Reading]:
        """What the store holds of all views of one user. Raises FeatureStoreError."""
        plan = self.plan
        return plan.readings(await self.pipeline.execute(plan.command(user_id)), self.now())

    def nothing(self) -> UserFeatures:
        """The features of a user whom nobody looked up."""
        return self.plan.nothing()

    async def close(self) -> None:
        """Ends what is in flight and closes the connection."""
        await self.pipeline.close()
