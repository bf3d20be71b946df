"""A logged answer made again: from its features as they were logged, by the steps of the request path.

What a request path reads of the store, and what time it has, is in the log; the catalogue is as it is now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from features.user import UserFeatures
from ranking.batch import Answer, Query
from ranking.errors import EngineExpired, EngineOverloaded, UnknownVersion
from ranking.fallback import without_engine
from service.answer_lookup import Logged, Lookup
from service.errors import DeadlineExceeded, Overloaded
from service.ladder import CANDIDATES, NPROBE, POPULAR, RANKER, popular_only, without
from service.placements import Placement
from service.query import LoadedModel, rank_query, recommend_query
from service.recommend import Recommender, arrange
from service.reply import listed
from service.router import PINNED, ModelVersions
from service.shopper import Shopper
from service.travel_wire import Because, ChangedFeature, ItemMove, Listing, PlacedItem, TimeTravel
from service.what_if import changes
from service.wire import Model, RecommendRequest

OF_THE_STORE = ("context", "last_known", "features")
"""What `degraded` says of how features were read: they were logged as they were used."""
STEPS = (NPROBE, CANDIDATES, RANKER)
"""What the engine was asked to do without."""
LATE_S = 5.0
"""What changes and counts of items may take to every worker: those of just before an answer may have missed it."""


class Traveller:
    """Makes logged answers again, on the engine of `recommender`. `timeout_s`: what the engine may take."""

    def __init__(
        self, recommender: Recommender, versions: ModelVersions, lookup: Lookup, *, timeout_s: float = 2.0
    ) -> None:
        self.recommender, self.versions = recommender, versions
        self.lookup, self.timeout_s = lookup, timeout_s

    async def travel(self, recommendation_id: str, version: str | None, sets: Sequence[str]) -> TimeTravel:
        """The answer as logged, and as `version` (None: the same) makes it now, with features set as `sets` say.

        Raises InvalidRequest, UnknownAnswer, LogUnreadable, UnknownVersion, UnknownPlacement, Overloaded,
        DeadlineExceeded or an EngineError.
        """
        logged = await self.lookup.find(recommendation_id)
        model = self.model(logged, version)
        changed = changes(sets, model.schema)
        placement = logged.settings or self.recommender.placements.get(logged.request.placement)
        query, now = await self.again(logged, model, placement, changed)
        then = Listing(
            Model(logged.model, logged.version, logged.model_group), logged.degraded,
            placed([(one.item_id, one.score, one.source) for one in logged.items]),
        )  # fmt: skip
        same = identical(then.items, now.items)
        return TimeTravel(
            recommendation_id,
            datetime.fromtimestamp(logged.at, UTC),
            "recommend" if isinstance(logged.request, RecommendRequest) else "rank",
            logged.request.placement,
            then,
            now,
            [ChangedFeature(name, logged.values.get(name), value) for name, value in changed.items()],
            same,
            moves(then.items, now.items),
            [] if same else list(because(logged, model, query, now)),
        )

    def model(self, logged: Logged, version: str | None) -> LoadedModel:
        """Raises UnknownVersion."""
        try:
            return self.versions.resolve(logged.model, version or logged.version)
        except UnknownVersion as error:
            if version is not None:
                raise
            raise UnknownVersion(f"{error}; `model_version` has the answer made by one of those") from error

    async def again(
        self, logged: Logged, model: LoadedModel, placement: Placement, changed: Mapping[str, Any]
    ) -> tuple[Query, Listing]:
        """What the request path does once it has read the shopper, and what was asked of the engine."""
        request, items = logged.request, model.items
        shopper = self.shopper(logged, changed)
        if isinstance(request, RecommendRequest):
            query, answer = await self.ask(
                logged, recommend_query(request, placement, model, shopper, {}), model, shopper
            )
            places = arrange(answer, items, placement.rules, request.count, shopper)
        else:
            query, answer = await self.ask(logged, rank_query(request, shopper, {}), model, shopper)
            places = list(range(len(answer.ranked.rows)))
        rows, scores, sources = listed(items, query, answer, places)
        shown = placed(list(zip(items.ids.take(rows), scores, sources, strict=True)))
        group = logged.model_group if model.version == logged.version else PINNED
        return query, Listing(Model(model.name, model.version, group), shopper.degraded, shown)

    def shopper(self, logged: Logged, changed: Mapping[str, Any]) -> Shopper:
        """The shopper as the request path knew it. A context, where there was one, is in the features already."""
        items_view = self.recommender.replies.item_view
        views = {name: view for name, view in logged.views.items() if name != items_view}
        session = logged.request.session.item_ids if logged.request.session else []
        degraded = [one for one in logged.degraded if one in OF_THE_STORE]
        return Shopper(UserFeatures({**logged.values, **changed}, views), session, degraded)

    async def ask(self, logged: Logged, query: Query, model: LoadedModel, shopper: Shopper) -> tuple[Query, Answer]:
        """The engine's answer to as much as was asked of it then; without it, where it was not asked."""
        if POPULAR in logged.stages:
            shopper.degraded.append(POPULAR if query.rank is None else RANKER)
            asked = popular_only(query)
            return asked, without_engine(model.items, asked)
        given_up = tuple(one for one in logged.degraded if one in STEPS)
        shopper.degraded += given_up
        asked, until = without(query, given_up), time.perf_counter() + self.timeout_s
        try:
            async with asyncio.timeout(self.timeout_s):
                engine = self.recommender.engine
                return asked, await engine.submit(model.key, asked, expires_at=until, bulk=True)
        except (TimeoutError, EngineExpired) as error:
            raise DeadlineExceeded(f"the engine did not come to it in {self.timeout_s:g} s: others go first") from error
        except EngineOverloaded as error:
            raise Overloaded(f"shoppers go first: {error}") from error


def placed(items: Sequence[tuple[str, float, str]]) -> list[PlacedItem]:
    return [PlacedItem(place, *one) for place, one in enumerate(items, 1)]


def identical(then: Sequence[PlacedItem], now: Sequence[PlacedItem]) -> bool:
    """The same items in the same order, with the same scores bit for bit, as float32."""
    before, after = (np.array([one.score for one in items], np.float32).tobytes() for items in (then, now))
    return [one.item_id for one in then] == [one.item_id for one in now] and before == after


def moves(then: Sequence[PlacedItem], now: Sequence[PlacedItem]) -> list[ItemMove]:
    """Each item of either list, in the order of the first and then of the second."""
    before, after = ({one.item_id: one for one in items} for items in (then, now))
    found = []
    for name in before | after:
        one, other = before.get(name), after.get(name)
        change = None if one is None or other is None else other.score - one.score
        found.append(ItemMove(name, None if one is None else one.place, None if other is None else other.place, change))
    return found


def because(logged: Logged, model: LoadedModel, query: Query, now: Listing) -> Sequence[Because]:
    """What is not as it was, though nobody asked for it to be otherwise."""
    found, since, items = list[Because](), logged.at - LATE_S, model.items
    if model.changed_at > since:
        at = datetime.fromtimestamp(model.changed_at, UTC).isoformat(timespec="milliseconds")
        found.append(Because("items", f"items have changed since the answer, the last at {at}"))
    if later := int(np.count_nonzero(np.isfinite(items.stats_at) & (items.stats_at > since))):
        found.append(Because("counts", f"events since the answer have changed the counts of {later:,} items"))
    if dict(query.sources) != dict(logged.sources):
        then, these = (
            ", ".join(f"{name} {most}" for name, most in one.items()) for one in (logged.sources, query.sources)
        )
        found.append(Because("sources", f"the candidate sources were {then}; they are {these}"))
    if now.degraded != logged.degraded:
        then, these = (", ".join(one) or "nothing" for one in (logged.degraded, now.degraded))
        found.append(Because("degraded", f"the answer was made without {then}; now without {these}"))
    if logged.settings is None:
        found.append(
            Because("settings", "the log does not say how the placement was set then: it is taken as it is now")
        )
    if unread := sorted(one for one in model.schema.references() if one.partition(":")[0] not in logged.views):
        found.append(Because("features", f"nobody had read these, which this version takes: {', '.join(unread)}"))
    if logged.batch_size > 1:
        found.append(Because("batch", f"{logged.batch_size} queries were computed together, which may round otherwise"))
    return found
