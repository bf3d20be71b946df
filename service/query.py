"""What to ask of the engine: the placement's sources, or popular items where those have nothing to go by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ranking.batch import Allowed, Query
from ranking.items import ItemTable
from ranking.schema import UserSchema
from service.placements import Placement, PlacementFilters
from service.shopper import Shopper
from service.wire import Filter, Price, RankRequest, RecommendRequest

PASSED_OVER = 5
"""How many times the count is ranked where a category cap may pass items over."""


class LoadedModel(Protocol):
    @property
    def key(self) -> str: ...

    @property
    def nprobe(self) -> int: ...

    name: str
    version: str
    items: ItemTable
    schema: UserSchema
    changed_at: float


def recommend_query(
    request: RecommendRequest, placement: Placement, model: LoadedModel, shopper: Shopper, values: Mapping[str, Any]
) -> Query:
    """`values` replace stored ones. What the shopper's state leaves no room for is added to `shopper.degraded`."""
    keep = request.count * (PASSED_OVER if placement.rules.category_cap else 1)
    in_session = any(one in model.items.row_of for one in shopper.session)
    sources, ranked = dict(placement.sources), placement.ranked
    if placement.needs_item:
        if request.item_id not in model.items.row_of:
            shopper.degraded.append("item")
            sources, ranked = {"popular": keep}, False
    elif not shopper.user.known and not in_session:
        if request.user_id is not None and "features" not in shopper.degraded:
            shopper.degraded.append("user")
        sources, ranked = {"popular": keep}, False
    elif not shopper.user.known and "personal" in sources:
        sources = {("session" if name == "personal" else name): quota for name, quota in sources.items()}
    exclude = list(request.exclude_item_ids)
    if placement.rules.already_bought and model.schema.purchased:
        exclude += shopper.user.values.get(model.schema.purchased) or []
    return Query(
        features={**shopper.user.values, **values},
        sources=sources,
        count=request.count,
        keep=keep,
        new=request.count // (placement.rules.new_every or request.count + 1),
        session=shopper.session,
        item_id=request.item_id,
        allowed=allowed(request.filter, placement.filters),
        exclude=exclude,
        ranked=ranked,
    )


def rank_query(request: RankRequest, shopper: Shopper, values: Mapping[str, Any]) -> Query:
    """The caller's own items, each once."""
    item_ids = list(dict.fromkeys(request.item_ids))
    return Query(
        features={**shopper.user.values, **values},
        sources={"request": len(item_ids)},
        count=len(item_ids),
        session=shopper.session,
        rank=item_ids,
    )


def allowed(asked: Filter | None, always: PlacementFilters) -> Allowed:
    """The request's filter and the placement's together."""
    asked = asked or Filter()
    price = asked.price or Price()
    price_min = max((x for x in (price.min, always.price_min) if x is not None), default=None)
    price_max = min((x for x in (price.max, always.price_max) if x is not None), default=None)
    both = [set(one) for one in (asked.category, always.categories) if one is not None]
    return Allowed(frozenset(set.intersection(*both)) if both else None, price_min, price_max)
