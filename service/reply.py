"""The answer as it goes out, and its record for those who keep count."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec import UNSET, UnsetType

from ranking.batch import Answer, Query
from ranking.items import ItemTable
from service.answer_id import answer_id
from service.answered import Answered, item_state
from service.placements import Placement
from service.query import LoadedModel
from service.shopper import Shopper
from service.trace import Trace
from service.wire import Item, ItemExplanation, Model, RankRequest, Recommendation, RecommendRequest, ViewFreshness


class Replies:
    """Makes answers. `item_view` is the feature view that the items' statistics are of: they are in the item table."""

    def __init__(
        self, item_view: str | None = None, record: Callable[[Answered], None] = lambda answered: None
    ) -> None:
        self.item_view, self.record = item_view, record

    def make(
        self,
        request: RecommendRequest | RankRequest,
        placement: Placement,
        model: LoadedModel,
        group: str,
        shopper: Shopper,
        query: Query,
        answer: Answer,
        places: Sequence[int],
        trace: Trace,
        missing: list[str] | None = None,
    ) -> Recommendation:
        """`places` are those of the engine's answer that are shown; `missing` the asked ids that no item has."""
        items, ranked, at_places = model.items, answer.ranked, list(places)
        rows, scores, sources = listed(items, query, answer, at_places)
        explain = request.explain
        told: list[ItemExplanation | UnsetType] = [UNSET] * len(rows)
        if explain:
            found = ranked.retrieval[at_places].tolist()
            told = [explanation(items, row, one) for row, one in zip(rows, found, strict=True)]
        shown = [Item(*one) for one in zip(items.ids.take(rows), scores, sources, told, strict=True)]
        at, took_ms = time.time(), round(trace.elapsed() * 1e3, 3)
        its_id = answer_id(at)
        views = shopper.user.views
        if self.item_view is not None:
            views = {**views, self.item_view: item_state(items.oldest_stats(ranked.rows[at_places]), len(shown), at)}
        self.record(
            Answered(
                its_id, at, "recommend" if missing is None else "rank", request, model.name, model.version, group,
                query.features, views, shown, query.sources, shopper.degraded, dict(trace.stages),
                took_ms, trace.batch_size, placement,
            )
        )  # fmt: skip
        return Recommendation(
            recommendation_id=its_id,
            model=Model(model.name, model.version, group),
            items=shown,
            degraded=shopper.degraded,
            features={
                name: ViewFreshness(view.status, None if view.age_s is None else round(view.age_s, 3))
                for name, view in views.items()
            },
            took_ms=took_ms,
            missing_item_ids=UNSET if missing is None else missing,
            inputs=dict(query.features) if explain else UNSET,
        )


def listed(
    items: ItemTable, query: Query, answer: Answer, places: list[int]
) -> tuple[list[int], list[float], list[str]]:
    """What stands at these places of the engine's answer: rows, scores, and the source that proposed each."""
    ranked, names = answer.ranked, list(query.sources)
    rows, scores = ranked.rows[places].tolist(), ranked.scores[places].tolist()
    sources = [names[one] for one in ranked.source[places].tolist()]
    if len(items) > items.learned:
        sources = [one if row < items.learned else "cold_start" for one, row in zip(sources, rows, strict=True)]
    return rows, scores, sources


def explanation(items: ItemTable, row: int, retrieval_score: float) -> ItemExplanation:
    price = float(items.price[row])
    category = items.categories[items.category[row]]
    return ItemExplanation(items.titles[row], category, round(price, 4) if price == price else None, retrieval_score)
