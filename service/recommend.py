"""The request path: one request, from its validated form to the answer. Reads top to bottom.

It sees protocols only: no network, no store, no tensor library. What a storefront must never do is wait or break, so
whatever is missing, or would take longer than the request has, is done without and named in `degraded`:

    context     the events up to the header `Endcap-After` are not in the features yet; those that were there were used
    last_known  the store did not answer in its time; what it last said of this shopper was used, with its age
    features    the store did not answer in its time, or held something unreadable; defaults were used
    user        the user is not known and the session is empty; popular items
    item        the item in view is not in the catalogue; popular items
    nprobe, candidates, ranker, popular    what time or load left no room for (`service.ladder`)
    count       the catalogue has fewer items that may be shown than were asked for
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ranking.batch import Answer, Engine, Query
from ranking.errors import EngineExpired, EngineOverloaded
from ranking.fallback import without_engine
from ranking.items import ItemTable
from service.admission import Admitted, Limiter
from service.budget import GRACE_S, Budget, Shares
from service.call import PLAIN, Call
from service.context import override
from service.errors import DeadlineExceeded, FieldError, InvalidRequest
from service.ladder import POPULAR, RANKER, least_rung, popular_only, rungs, without
from service.placements import Placement, PlacementRules, Placements
from service.query import LoadedModel, rank_query, recommend_query
from service.reply import Replies
from service.router import CONTROL, Chosen
from service.rules import shown
from service.shadow import Served, Shadows
from service.shopper import Shopper, Shoppers
from service.trace import Trace
from service.wire import RankRequest, Recommendation, RecommendRequest


class Models(Protocol):
    def choose(self, placement: Placement, request: RecommendRequest | RankRequest) -> Chosen: ...


@dataclass(slots=True)
class Turn:
    """A request on its way: `place` is what its times are kept under, `group` whom the model answers it for, `budget`
    what it has left, `bulk` whether others go first."""

    place: str
    placement: Placement
    model: LoadedModel
    group: str
    budget: Budget
    bulk: bool
    after: str | None
    trace: Trace


class Recommender:
    """Answers requests. `most_s` bounds any request, whatever its placement allows."""

    def __init__(
        self, shoppers: Shoppers, engine: Engine, models: Models, placements: Placements, limiter: Limiter,
        shares: Shares, replies: Replies, shadows: Shadows, *, most_s: float,
    ) -> None:  # fmt: skip
        self.shoppers, self.engine, self.models, self.placements = shoppers, engine, models, placements
        self.limiter, self.shares, self.replies, self.shadows = limiter, shares, replies, shadows
        self.most_s = most_s

    async def recommend(self, request: RecommendRequest, trace: Trace, call: Call = PLAIN) -> Recommendation:
        """Raises UnknownPlacement, UnknownVersion, InvalidRequest, Overloaded, DeadlineExceeded or an EngineError."""
        turn = self.begin(request, request.placement, call, trace)
        if turn.placement.needs_item and request.item_id is None:
            raise InvalidRequest(FieldError("item_id", f"placement {request.placement!r} needs the item in view"))
        values = override(request.context, turn.model.schema)
        with self.limiter.admit(turn.budget.total_s, bulk=turn.bulk) as admitted:
            shopper = await self.read(request, turn, admitted)
            query = recommend_query(request, turn.placement, turn.model, shopper, values)
            query, answer = await self.ask(query, turn, admitted, shopper)
            with trace("rules"):
                places = arrange(answer, turn.model.items, turn.placement.rules, request.count, shopper)
            return self.reply(request, turn, shopper, query, answer, places)

    async def rank(self, request: RankRequest, trace: Trace, call: Call = PLAIN) -> Recommendation:
        """The caller's own items in order of score. Raises as `recommend` does."""
        turn = self.begin(request, f"{request.placement}/rank", call, trace)
        values = override(request.context, turn.model.schema)
        with self.limiter.admit(turn.budget.total_s, bulk=turn.bulk) as admitted:
            shopper = await self.read(request, turn, admitted)
            query, answer = await self.ask(rank_query(request, shopper, values), turn, admitted, shopper)
            missing = turn.model.items.unknown(query.rank or ())
            return self.reply(request, turn, shopper, query, answer, range(len(answer.ranked.rows)), missing)

    def bulk(self, request: RecommendRequest | RankRequest, call: Call) -> bool:
        """Whether others go first: as the call says, else as its placement does. Raises UnknownPlacement."""
        return self.placements.get(request.placement).priority == "bulk" if call.bulk is None else call.bulk

    def begin(self, request: RecommendRequest | RankRequest, place: str, call: Call, trace: Trace) -> Turn:
        """The placement, the model, and the time that there is: what the caller has left, up to what is allowed."""
        placement = self.placements.get(request.placement)
        chosen = self.models.choose(placement, request)
        trace.chosen = request.placement, chosen.model.name, chosen.model.version, chosen.group
        said = placement.timeout_ms / 1e3 if call.timeout_s is None else call.timeout_s
        most = said if call.patient else min(said, placement.cap_ms / 1e3, self.most_s)
        budget = Budget(trace.began, most, trace.clock)
        turn = Turn(place, placement, chosen.model, chosen.group, budget, self.bulk(request, call), call.after, trace)
        in_time(turn)
        return turn

    async def read(self, request: RecommendRequest | RankRequest, turn: Turn, admitted: Admitted) -> Shopper:
        """What is known of the shopper, read in the time that the engine leaves for it."""
        allowed_s = self.shares.for_features(turn.budget, turn.place, self.engine.wait_s()) * (not admitted.beyond)
        began = turn.trace.clock()
        shopper = await self.shoppers.read(request, allowed_s, turn.trace, turn.after)
        admitted.elsewhere_s = self.shares.store_s(turn.trace.clock() - began)
        return shopper

    async def ask(self, query: Query, turn: Turn, admitted: Admitted, shopper: Shopper) -> tuple[Query, Answer]:
        """The engine's answer to as much as fits into what is left, be it nothing; and what was asked in the end."""
        ladder = rungs(query, turn.model.nprobe)
        least = least_rung(admitted.pressure, len(ladder))
        rung = self.shares.rung(turn.place, len(ladder) + 1, least, turn.budget, self.engine.wait_s())
        if rung is not None:
            asked = without(query, ladder[:rung])
            if (answer := await self.submit(asked, rung, turn)) is not None:
                shopper.degraded += ladder[:rung]
                return asked, answer
        in_time(turn)
        with turn.trace(POPULAR):
            shopper.degraded.append(POPULAR if query.rank is None else RANKER)
            asked = popular_only(query)
            return asked, without_engine(turn.model.items, asked)

    async def submit(self, query: Query, rung: int, turn: Turn) -> Answer | None:
        """What the engine says; None where it does not in time."""
        trace, began, room = turn.trace, turn.trace.clock(), self.shares.for_engine(turn.budget)
        try:
            with trace("engine"):
                async with asyncio.timeout(room):
                    answer = await self.engine.submit(turn.model.key, query, expires_at=began + room, bulk=turn.bulk)
        except TimeoutError:
            self.shares.saw_engine(turn.place, rung, trace.clock() - began, ended=False)
            return None
        except (EngineExpired, EngineOverloaded):
            return None  # it never had its turn, which says nothing of how long one takes
        self.shares.saw_engine(turn.place, rung, trace.clock() - began - answer.queue_s)
        trace.add({"queue": answer.queue_s, **answer.stages})
        trace.batch_size = answer.batch_size
        return answer

    def reply(
        self, request: RecommendRequest | RankRequest, turn: Turn, shopper: Shopper, query: Query, answer: Answer,
        places: Sequence[int], missing: list[str] | None = None,
    ) -> Recommendation:  # fmt: skip
        """The answer as it goes out."""
        in_time(turn)
        began = turn.trace.clock()
        made = self.replies.make(
            request, turn.placement, turn.model, turn.group, shopper, query, answer, places, turn.trace, missing
        )
        self.shares.saw_finish(turn.trace.clock() - began + turn.trace.stages.get("rules", 0.0))
        if turn.placement.shadow is not None or turn.group == CONTROL:
            self.shadows.offer(Served(request, turn.placement, turn.model, turn.group, shopper, turn.trace, made))
        return made


def arrange(answer: Answer, items: ItemTable, rules: PlacementRules, count: int, shopper: Shopper) -> list[int]:
    """The places of the engine's answer that the rules let be shown, at most `count`; fewer are named."""
    places: list[int] = shown(answer.ranked.rows, items, rules, count).tolist()
    if len(places) < count:
        shopper.degraded.append("count")
    return places


def in_time(turn: Turn) -> None:
    """Raises DeadlineExceeded, which says where the time went, when an answer would come too late."""
    if turn.budget.left() <= -GRACE_S or turn.budget.total_s <= 0:
        spent = ", ".join(f"{stage} {seconds * 1e3:.1f} ms" for stage, seconds in turn.trace.stages.items())
        raise DeadlineExceeded(f"no answer in {turn.budget.total_s * 1e3:g} ms; so far: {spent or 'nothing'}")
