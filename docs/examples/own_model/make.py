"""Stands for what you have already: weights, an item table, and the rows behind the Feast views."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from models import Ranker, Tower

HERE = Path(__file__).resolve().parent
ITEMS, USERS = 2000, 100


def main() -> None:
    rng = np.random.default_rng(7)
    torch.manual_seed(7)
    torch.save(Tower().state_dict(), HERE / "tower.pt")
    torch.save(Ranker().state_dict(), HERE / "ranker.pt")

    vectors = rng.standard_normal((ITEMS, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = {
        "sku": np.arange(1000, 1000 + ITEMS),
        "name": [f"Thing {row}" for row in range(ITEMS)],
        "price": np.round(rng.lognormal(3, 0.8, ITEMS), 2),
        "embedding": pa.FixedSizeListArray.from_arrays(vectors.ravel(), 16),
    }
    pq.write_table(pa.table(items), HERE / "items.parquet")

    now = datetime.now(UTC).replace(microsecond=0)
    users = {"user_id": [f"u{row}" for row in range(USERS)], "event_timestamp": [now] * USERS}
    profile = {
        "age": rng.integers(18, 80, USERS),
        "spend": rng.lognormal(3, 1, USERS).astype(np.float32),
        "country": rng.choice(["DE", "FR", "US", "PT"], USERS).tolist(),
    }
    pq.write_table(pa.table(users | profile), HERE / "feature_repo" / "profile.parquet")
    seen = [[str(sku) for sku in rng.integers(1000, 1000 + ITEMS, row % 8)] for row in range(USERS)]
    recent = {"items": pa.array(seen, pa.list_(pa.string()))}
    pq.write_table(pa.table(users | recent), HERE / "feature_repo" / "recent.parquet")


if __name__ == "__main__":
    main()
