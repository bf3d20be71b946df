"""The request path: one request, from its validated form to the answer. Reads top to bottom.

It sees protocols only: no network, no store, no tensor library. What a storefront must never do is wait or break, so
whatever is missing is done without and named in `degraded`:

    context    the events up to the header `Endcap-After` are not in the features yet; those that were there were used
    features   the store did not answer in its time, or held something unreadable; defaults were used
    user       the user is not known and the session is empty; popular items
    item       the item in view is not in the catalogue; popular items
    count      the catalogue has fewer items that may be shown than were asked for
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec import UNSET

from features.errors import FeatureStoreError
from features.user import UserFeatures
from ranking.batch import Allowed, Answer, Engine, Query
from ranking.items import ItemTable
from ranking.schema import UserSchema
from service.answered import Answered, item_state
from service.context import override
from service.errors import DeadlineExceeded, FieldError, InvalidRequest
from service.placements import Placement, PlacementFilters, Placements
from service.rules import choose
from service.trace import Trace
from service.wire import (
    Filter,
    Item,
    ItemExplanation,
    Model,
    Price,
    RankRequest,
    Recommendation,
    RecommendRequest,
    ViewFreshness,
)

PASSED_OVER = 5
"""How many times the count is ranked where a category cap may pass items over."""


class FeatureReader(Protocol):
    async def read(self, user_id: str) -> UserFeatures: ...

    def nothing(self) -> UserFeatures: ...


class AppliedEvents(Protocol):
    def check(self, token: str) -> None: ...

    async def wait(self, token: str, timeout_s: float) -> bool: ...


class LoadedModel(Protocol):
    @property
    def key(self) -> str: ...

    name: str
    version: str
    items: ItemTable
    schema: UserSchema


class ModelVersions(Protocol):
    def resolve(self, model: str, version: str | None = None) -> LoadedModel: ...


@dataclass(slots=True)
class Context:
    """What is known of the shopper: features by Feast reference, what was found of each view, what was missing."""

    user: UserFeatures
    session: Sequence[str]
    degraded: list[str] = field(default_factory=list)


class Recommender:
    """Answers requests. `timeout_s` bounds a whole request, `feature_timeout_s` the wait for the feature store.

    `item_view` is the feature view that the items' statistics are of: they are in the item table already.
    """

    def __init__(
        self,
        features: FeatureReader,
        engine: Engine,
        models: ModelVersions,
        placements: Placements,
        applied: AppliedEvents,
        *,
        timeout_s: float,
        feature_timeout_s: float,
        item_view: str | None = None,
        record: Callable[[Answered], None] = lambda answered: None,
    ) -> None:
        self.features, self.engine, self.models, self.placements = features, engine, models, placements
        self.applied = applied
        self.timeout_s, self.feature_timeout_s, self.record = timeout_s, feature_timeout_s, record
        self.item_view = item_view

    async def recommend(self, request: RecommendRequest, trace: Trace, after: str | None = None) -> Recommendation:
        """`after` is the token of events that the features must hold.

        Raises UnknownPlacement, UnknownVersion, InvalidRequest, DeadlineExceeded or an EngineError.
        """
        placement = self.placements.get(request.placement)
        model = self.models.resolve(placement.model, request.model_version)
        if placement.needs_item and request.item_id is None:
            raise InvalidRequest(FieldError("item_id", f"placement {request.placement!r} needs the item in view"))
        values = override(request.context, model.schema)
        async with deadline(self.timeout_s, trace):
            context = await self.context(request, trace, after)
            query = self.query(request, placement, model, context, values)
            answer = await self.submit(model, query, trace)
        with trace("rules"):
            rows, items = answer.ranked.rows, model.items
            shown = choose(items.category[rows], rows >= items.learned, placement.rules, request.count)
            if len(shown) < request.count:
                context.degraded.append("count")
        return self.answer(request, model, context, query, answer, shown.tolist(), trace)

    async def rank(self, request: RankRequest, trace: Trace, after: str | None = None) -> Recommendation:
        """The caller's own items in order of score. Raises as `recommend` does."""
        placement = self.placements.get(request.placement)
        model = self.models.resolve(placement.model, request.model_version)
        values = override(request.context, model.schema)
        item_ids = list(dict.fromkeys(request.item_ids))
        async with deadline(self.timeout_s, trace):
            context = await self.context(request, trace, after)
            query = Query(
                features={**context.user.values, **values},
                sources={"request": len(item_ids)},
                count=len(item_ids),
                session=context.session,
                rank=item_ids,
            )
            answer = await self.submit(model, query, trace)
        missing = [one for one in item_ids if one not in model.items.row_of]
        places = range(len(answer.ranked.rows))
        return self.answer(request, model, context, query, answer, places, trace, missing)

    async def context(self, request: RecommendRequest | RankRequest, trace: Trace, after: str | None) -> Context:
        """The shopper's features, or nothing and `degraded` when the store does not answer in its time."""
        session = request.session.item_ids if request.session else []
        if after is not None:
            self.check(after)
        if request.user_id is None:  # nobody's features to wait for
            return Context(self.features.nothing(), session)
        degraded = [] if after is None or await self.is_applied(after, trace) else ["context"]
        with trace("features"):
            try:
                async with asyncio.timeout(self.feature_timeout_s):
                    user = await self.features.read(request.user_id)
            except (FeatureStoreError, TimeoutError):
                return Context(self.features.nothing(), session, [*degraded, "features"])
        if any(view.status == "unreadable" for view in user.views.values()):
            degraded.append("features")
        return Context(user, session, degraded)

    def check(self, token: str) -> None:
        try:
            self.applied.check(token)
        except ValueError as error:
            raise InvalidRequest(FieldError("Endcap-After", str(error))) from error

    async def is_applied(self, token: str, trace: Trace) -> bool:
        """Whether the events up to the token are in the features, waiting for it as long as for the features."""
        with trace("context"):
            return await self.applied.wait(token, self.feature_timeout_s)

    def query(
        self,
        request: RecommendRequest,
        placement: Placement,
        model: LoadedModel,
        context: Context,
        values: Mapping[str, Any],
    ) -> Query:
        """What to ask of the engine: the placement's sources, or popular items where those have nothing to go by."""
        keep = request.count * (PASSED_OVER if placement.rules.category_cap else 1)
        in_session = any(one in model.items.row_of for one in context.session)
        sources, ranked = dict(placement.sources), placement.ranked
        if placement.needs_item:
            if request.item_id not in model.items.row_of:
                context.degraded.append("item")
                sources, ranked = {"popular": keep}, False
        elif not context.user.known and not in_session:
            if request.user_id is not None and "features" not in context.degraded:
                context.degraded.append("user")
            sources, ranked = {"popular": keep}, False
        elif not context.user.known and "personal" in sources:
            sources = {("session" if name == "personal" else name): quota for name, quota in sources.items()}
        exclude = list(request.exclude_item_ids)
        if placement.rules.already_bought and model.schema.purchased:
            exclude += context.user.values.get(model.schema.purchased) or []
        return Query(
            features={**context.user.values, **values},
            sources=sources,
            count=request.count,
            keep=keep,
            new=request.count // (placement.rules.new_every or request.count + 1),
            session=context.session,
            item_id=request.item_id,
            allowed=allowed(request.filter, placement.filters),
            exclude=exclude,
            ranked=ranked,
        )

    async def submit(self, model: LoadedModel, query: Query, trace: Trace) -> Answer:
        with trace("engine"):
            answer = await self.engine.submit(model.key, query)
        trace.add({"queue": answer.queue_s, **answer.stages})
        trace.batch_size = answer.batch_size
        return answer

    def answer(
        self,
        request: RecommendRequest | RankRequest,
        model: LoadedModel,
        context: Context,
        query: Query,
        answer: Answer,
        places: Sequence[int],
        trace: Trace,
        missing: list[str] | None = None,
    ) -> Recommendation:
        """The answer as it goes out, and its record for the serving log."""
        items, ranked, names = model.items, answer.ranked, list(query.sources)
        rows, scores, source = ranked.rows.tolist(), ranked.scores.tolist(), ranked.source.tolist()
        its_id, explain = secrets.token_hex(16), request.explain
        shown = [
            Item(
                items.ids[rows[place]],
                scores[place],
                names[source[place]] if rows[place] < items.learned else "cold_start",
                explanation(items, rows[place], float(ranked.retrieval[place])) if explain else UNSET,
            )
            for place in places
        ]
        at, took_ms = time.time(), round(trace.elapsed() * 1e3, 3)
        views = context.user.views
        if self.item_view is not None:
            views = {**views, self.item_view: item_state(items.oldest_stats(ranked.rows[places]), len(shown), at)}
        self.record(
            Answered(
                its_id, at, "recommend" if missing is None else "rank", request, model.name, model.version,
                query.features, views, shown, query.sources, context.degraded, dict(trace.stages),
                took_ms, trace.batch_size,
            )
        )  # fmt: skip
        return Recommendation(
            recommendation_id=its_id,
            model=Model(model.name, model.version),
            items=shown,
            degraded=context.degraded,
            features={
                name: ViewFreshness(view.status, None if view.age_s is None else round(view.age_s, 3))
                for name, view in views.items()
            },
            took_ms=took_ms,
            missing_item_ids=UNSET if missing is None else missing,
            inputs=dict(query.features) if explain else UNSET,
        )


@asynccontextmanager
async def deadline(timeout_s: float, trace: Trace) -> AsyncIterator[None]:
    """Ends what runs inside it when the request's time is up. Raises DeadlineExceeded."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        spent = ", ".join(f"{stage} {seconds * 1e3:.1f} ms" for stage, seconds in trace.stages.items())
        raise DeadlineExceeded(f"no answer in {timeout_s * 1e3:g} ms; so far: {spent}") from error


def allowed(asked: Filter | None, always: PlacementFilters) -> Allowed:
    """The request's filter and the placement's together."""
    asked = asked or Filter()
    price = asked.price or Price()
    price_min = max((x for x in (price.min, always.price_min) if x is not None), default=None)
    price_max = min((x for x in (price.max, always.price_max) if x is not None), default=None)
    both = [set(one) for one in (asked.category, always.categories) if one is not None]
    return Allowed(frozenset(set.intersection(*both)) if both else None, price_min, price_max)


def explanation(items: ItemTable, row: int, retrieval_score: float) -> ItemExplanation:
    price = float(items.price[row])
    category = items.categories[items.category[row]]
    return ItemExplanation(items.titles[row], category, round(price, 4) if price == price else None, retrieval_score)
