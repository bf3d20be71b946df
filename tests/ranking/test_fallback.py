"""What is answered without the engine is what the engine's own popular source would say."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from ranking.batch import Allowed, Query
from ranking.bundle import load_bundle
from ranking.engine import BatchPath
from ranking.fallback import without_engine
from ranking.sources.popular import Popular
from tests.ranking.factory import make_bundle


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"keep": 60},
        {"allowed": Allowed(frozenset({"Lamps", "no such"}))},
        {"allowed": Allowed(price_min=5.0, price_max=20.0)},
        {"allowed": Allowed(price_max=1e300)},
        {"exclude": [f"i{i:05d}" for i in range(1, 30)], "item_id": "i00040"},
        {"allowed": Allowed(frozenset({"no such"}))},
    ],
)
def test_popular_items_obey_every_filter(changes: dict[str, object], tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path))
    path = BatchPath(bundle, [Popular()], torch.device("cpu"))
    query = Query(**{"features": {}, "sources": {"popular": 60}, "count": 20, "ranked": False, **changes})  # type: ignore[arg-type]
    expected = path.recommend([query], lambda stage: nullcontext())[0]
    found = without_engine(bundle.items, query).ranked
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert len(found.scores) == len(found.rows) and (np.diff(found.scores) < 0).all()


def test_a_callers_own_items_stay_in_the_callers_order(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path))
    query = Query({}, {"request": 3}, 3, rank=["i00009", "unknown", "i00002"], ranked=False)
    found = without_engine(bundle.items, query)
    assert [bundle.items.ids[row] for row in found.ranked.rows] == ["i00009", "i00002"]
