"""One answer and what it was made of: what the request path tells those who keep count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from features.user import ViewState
from service.placements import Placement
from service.wire import Item, RankRequest, RecommendRequest


def item_state(since: float, shown: int, at: float) -> ViewState:
    """The view of the items shown, whose oldest statistics are of `since`, at `at` (seconds since the epoch)."""
    if since == inf:
        return ViewState("missing" if shown else "not_read", None)
    return ViewState("present", max(0.0, at - since))


@dataclass(slots=True)
class Answered:
    """One answer and what it was made of. Nothing in it may change after `put`.

    `at` is in seconds since the epoch, `values` holds raw feature values by Feast reference as the model used them,
    `sources` the most that each candidate source could propose, `stages` seconds; `settings` is the placement as it was
    set, None where nobody says.
    """

    recommendation_id: str
    at: float
    endpoint: str
    request: RecommendRequest | RankRequest
    model: str
    version: str
    model_group: str
    values: Mapping[str, Any]
    views: Mapping[str, ViewState]
    items: Sequence[Item]
    sources: Mapping[str, int]
    degraded: Sequence[str]
    stages: Mapping[str, float]
    took_ms: float
    batch_size: int
    settings: Placement | None = None
