"""A bundle that was never a file: for machines where faiss, which writes its index, is not installed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ranking.bundle import Bundle, Manifest
from ranking.index import ExactIndex
from ranking.items import item_table
from ranking.models import ModuleSpec
from tests.ranking.factory import make_trained


def bundle(items: int) -> Bundle:
    """The factory's, the same for the same size."""
    made = make_trained(items)
    spec = ModuleSpec("in memory", {}, "none")
    manifest = Manifest(
        format=1, name="default", version="1", created_at=datetime.now(UTC), user=made.user, item=made.item,
        dimension=made.embeddings.shape[1], user_tower=spec, ranker=spec, index=made.index, metrics={}, files={},
    )  # fmt: skip
    models = (one.eval().requires_grad_(False) for one in (made.tower, made.ranker))
    table = item_table(made.items, made.embeddings, made.item, 0.0)
    index = ExactIndex(made.embeddings)
    return Bundle(Path("in memory"), manifest, table, index, *models, made.neighbors, made.neighbor_scores)
