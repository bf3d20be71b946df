"""The same request to another version, after the answer and on spare capacity only: how far would it answer otherwise?

A shopper never waits for it and never sees what becomes of it. It is the first to go: where anybody is being answered
in that moment it is dropped, before it has cost anything, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from ranking.agreement import overlap, rank_biased_overlap
from ranking.batch import Answer, Engine, Query
from ranking.errors import EngineExpired, EngineOverloaded, EngineStopped, UnknownVersion
from service.admission import Limiter
from service.answer_figures import COMPARED, DROPPED, EXPIRED, FAILED, ShadowFigures
from service.context import override
from service.ladder import CANDIDATES, NPROBE, RANKER, without
from service.placements import Placement
from service.query import LoadedModel, rank_query, recommend_query
from service.router import CONTROL, PINNED, ModelVersions
from service.rules import shown
from service.shopper import Shopper
from service.trace import Trace
from service.wire import Item, RankRequest, Recommendation, RecommendRequest

log = logging.getLogger(__name__)

AT_ONCE = 2
"""Shadows under way at the most."""
COMPARED_SHARE = 0.2
"""Of production's answers that are held against a rollout's whose rules ask for it."""
OVERLAP_AT = 10
"""The k of overlap@k; of a shorter list its length."""
STEPS = (NPROBE, CANDIDATES, RANKER)
"""What an answer of the engine may have given up, and its shadow then gives up too."""


@dataclass(frozen=True, slots=True)
class Served:
    """A request that was answered: by whom, for which shopper, and with what."""

    request: RecommendRequest | RankRequest
    placement: Placement
    model: LoadedModel
    group: str
    shopper: Shopper
    trace: Trace
    answer: Recommendation


class Shadows:
    """Has answers compared with another version's. For one event loop. `chance` gives numbers in [0, 1)."""

    def __init__(
        self, engine: Engine, versions: ModelVersions, limiter: Limiter, figures: ShadowFigures,
        chance: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        self.engine, self.versions, self.limiter, self.figures, self.chance = engine, versions, limiter, figures, chance
        self.tasks: set[asyncio.Task[None]] = set()
        self.told: set[str] = set()

    def offer(self, served: Served) -> None:
        """Notes an answer that is about to leave; at the earliest the loop's next turn does more about it."""
        version, share = self.wanted(served)
        if version is None or self.chance() >= share:
            return
        try:
            model = self.versions.resolve(served.placement.model, version)
        except UnknownVersion:  # an alias that is not set
            return
        if model is served.model:
            return
        if not served.trace.batch_size or len(self.tasks) >= AT_ONCE:  # without the engine there was no time for it
            self.figures.count(served.request.placement, model, DROPPED)
            return
        task = asyncio.create_task(self.follow(served, model))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def wanted(self, served: Served) -> tuple[str | None, float]:
        """Which version shadows such an answer, if any, and of which share. While a rollout is to agree with production
        to some degree, production's answers have it as their shadow."""
        rollout = self.versions.rollouts.get(served.placement.model) if served.group == CONTROL else None
        if rollout is not None and rollout.compares:
            return rollout.version, COMPARED_SHARE
        shadow = served.placement.shadow
        if shadow is None or served.group == PINNED:
            return None, 0.0
        return shadow.version, shadow.share

    async def follow(self, served: Served, model: LoadedModel) -> None:
        """One shadow, whatever becomes of it."""
        try:
            outcome = await self.compare(served, model) if self.spare() else DROPPED
        except (EngineOverloaded, EngineStopped):
            outcome = DROPPED
        except EngineExpired:
            outcome = EXPIRED
        except Exception as error:  # noqa: BLE001 - whatever a candidate does, it is no shopper's trouble
            outcome = FAILED
            if model.key not in self.told:
                self.told.add(model.key)
                log.warning("shadow %s failed, and is only counted from here on: %r", model.key, error)
        self.figures.count(served.request.placement, model, outcome)

    def spare(self) -> bool:
        """Whether nobody is being answered: who is at another stage now would meet the shadow at the engine."""
        return self.limiter.in_flight == 0 and self.engine.wait_s() <= 0

    async def compare(self, served: Served, model: LoadedModel) -> str:
        request, query = served.request, ask(served, model)
        began = time.perf_counter()
        expires_at = began + served.placement.timeout_ms / 1e3
        answer = await self.engine.submit(model.key, query, expires_at=expires_at, bulk=True)
        took_s = time.perf_counter() - began - answer.queue_s
        stages = served.trace.stages
        ids, scores = listed(served, model, answer)
        theirs = served.answer.items
        self.figures.compare(
            request.placement, model,
            overlap=agreed(theirs, ids), rbo=rank_biased_overlap([one.item_id for one in theirs], ids),
            drift=drift(theirs, ids, scores), seconds=took_s,
            answer_seconds=stages["engine"] - stages["queue"],
        )  # fmt: skip
        return COMPARED

    async def stop(self) -> None:
        """Gives up those that are under way."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def ask(served: Served, model: LoadedModel) -> Query:
    """The request as another version is asked it: with the same features, and as little effort. Raises InvalidRequest
    for a `context` that it does not know."""
    request, shopper = served.request, Shopper(served.shopper.user, served.shopper.session)
    values = override(request.context, model.schema)
    if isinstance(request, RankRequest):
        query = rank_query(request, shopper, values)
    else:
        query = recommend_query(request, served.placement, model, shopper, values)
    return without(query, tuple(one for one in served.shopper.degraded if one in STEPS))


def listed(served: Served, model: LoadedModel, answer: Answer) -> tuple[list[str], list[float]]:
    """The ids that the shadow would show, by the placement's rules, and their scores."""
    ranked, request = answer.ranked, served.request
    rows, scores = ranked.rows, ranked.scores
    if isinstance(request, RecommendRequest):
        places = shown(rows, model.items, served.placement.rules, request.count)
        rows, scores = rows[places], scores[places]
    return model.items.ids.take(rows.tolist()), scores.tolist()


def agreed(theirs: Sequence[Item], ids: Sequence[str]) -> float:
    k = min(OVERLAP_AT, max(len(theirs), len(ids)))
    return overlap([one.item_id for one in theirs], ids, k) if k else 1.0


def drift(theirs: Sequence[Item], ids: Sequence[str], scores: Sequence[float]) -> float | None:
    """By how much more the shadow scores the items of both lists, on average; None where there is none."""
    ours = dict(zip(ids, scores, strict=True))
    found = [ours[one.item_id] - one.score for one in theirs if one.item_id in ours]
    return fmean(found) if found else None
