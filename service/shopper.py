"""What is known of a shopper: the features, read in the time that they may take, and what was done without."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from features.errors import FeatureStoreError
from features.user import UserFeatures
from service.budget import Shares
from service.errors import FieldError, InvalidRequest
from service.trace import Trace
from service.wire import RankRequest, RecommendRequest

SUSPECT_S = 0.002
"""How long a store that has let a read time out is waited for at the least, until it answers again."""
PROBE_S = 0.25
"""How often somebody waits for it as long as ever: it may be slower than it was, and never answer in what was usual."""


class FeatureReader(Protocol):
    async def read(self, user_id: str) -> UserFeatures: ...

    def last_known(self, user_id: str) -> UserFeatures | None: ...

    def nothing(self) -> UserFeatures: ...


class AppliedEvents(Protocol):
    def check(self, token: str) -> None: ...

    async def wait(self, token: str, timeout_s: float) -> bool: ...


@dataclass(slots=True)
class Shopper:
    """Features by Feast reference with what was found of each view, this visit's items, and what was missing."""

    user: UserFeatures
    session: Sequence[str]
    degraded: list[str] = field(default_factory=list)


class Shoppers:
    """Reads shoppers. `timeout_s` bounds the wait for the store, whatever a budget leaves for it."""

    def __init__(self, features: FeatureReader, applied: AppliedEvents, shares: Shares, *, timeout_s: float) -> None:
        self.features, self.applied, self.shares, self.timeout_s = features, applied, shares, timeout_s
        self.suspect, self.next_probe = False, 0.0

    async def read(
        self, request: RecommendRequest | RankRequest, allowed_s: float, trace: Trace, after: str | None
    ) -> Shopper:
        """A shopper's features within `allowed_s`; where the store does not answer in it those that are remembered,
        else none. Raises InvalidRequest for a token that is none."""
        session = request.session.item_ids if request.session else []
        if after is not None:
            self._check(after)
        if request.user_id is None:  # nobody's features to wait for
            return Shopper(self.features.nothing(), session)
        until = trace.clock() + min(allowed_s, self.timeout_s)
        usual = self.shares.features.now(trace.clock())
        degraded = []
        if after is not None:
            with trace("context"):
                left = until - trace.clock()
                if not await self.applied.wait(after, max(min(left - 2 * usual, left * 3 / 4), 0.0)):
                    degraded.append("context")
        with trace("features"):
            user = await self._features(request.user_id, until, usual, trace)
        if user is None:
            user = self.features.last_known(request.user_id)
            if user is None:
                return Shopper(self.features.nothing(), session, [*degraded, "features"])
            degraded.append("last_known")
        if any(view.status == "unreadable" for view in user.views.values()):
            degraded.append("features")
        return Shopper(user, session, degraded)

    async def _features(self, user_id: str, until: float, usual: float, trace: Trace) -> UserFeatures | None:
        """What the store says; None where it does not in time. A store that has let somebody wait in vain is waited for
        only as long as it usually takes, but for a probe now and then, until it answers."""
        began = trace.clock()
        allowed = until - began
        if self.suspect and began < self.next_probe:
            allowed = min(allowed, max(usual, SUSPECT_S))
        elif self.suspect:
            self.next_probe = began + PROBE_S
        if allowed <= usual / 4:  # it would hardly come
            return None
        self.shares.time_turn()
        try:
            async with asyncio.timeout(allowed):
                user = await self.features.read(user_id)
        except TimeoutError:
            if not self.suspect:
                self.suspect, self.next_probe = True, trace.clock() + PROBE_S
            return None
        except FeatureStoreError:
            return None
        self.suspect = False
        self.shares.saw_features(trace.clock() - began)
        return user

    def _check(self, token: str) -> None:
        try:
            self.applied.check(token)
        except ValueError as error:
            raise InvalidRequest(FieldError("Endcap-After", str(error))) from error
