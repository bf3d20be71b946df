"""The models themselves as the tests of their two doors ask for them, and what torch says of the same inputs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ranking.bundle import Bundle
from ranking.covisit import Covisits
from tests.service.conftest import Client
from tests.service.rpc_client import serving

TOWER, RANKER = "default.user_tower", "default.ranker"
OPEN = "\n[oip]\nenabled = true\n"


@asynccontextmanager
async def open_shop(shop: Path) -> AsyncIterator[tuple[Client, str]]:
    """A service with both doors open, and the address of the second."""
    async with serving(shop) as rpc:
        yield rpc.http, f"127.0.0.1:{rpc.port}"


class Asked:
    """Inputs at random that a bundle's models can be given: `users` of them with `candidates` items each."""

    def __init__(self, bundle: Bundle, users: int, candidates: int, seed: int = 0) -> None:
        rng, schema = np.random.default_rng(seed), bundle.schema
        self.bundle = bundle
        self.dense = rng.normal(size=(users, len(schema.dense))).astype(np.float32)
        codes = [rng.integers(0, len(one.vocabulary) + 1, users) for one in schema.categorical]
        self.categorical = np.stack(codes, 1)
        self.history = rng.integers(-1, bundle.items.learned, (users, schema.history.length))
        self.rows = rng.integers(0, len(bundle.items), (users, candidates))

    @property
    def item_ids(self) -> list[list[str]]:
        return [[self.bundle.items.ids[row] for row in rows] for rows in self.rows.tolist()]

    @torch.inference_mode()
    def by_torch(self, bundle: Bundle) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """What the bundle's own modules say: the users' vectors, and the scores."""
        items = bundle.items
        users = [torch.from_numpy(one) for one in (self.dense, self.categorical, self.history)]
        vectors = bundle.user_tower(*users)
        covisits = Covisits(bundle.neighbors, bundle.neighbor_scores)
        signals = np.zeros((*self.rows.shape, 1), np.float32)
        for one, rows in enumerate(self.rows):
            signals[one, :, 0] = covisits.lookup(rows, *covisits.accumulate(self.history[one]))
        of_items = (self.rows, *(table[self.rows] for table in (items.embeddings, items.dense, items.categorical)))
        rest = [torch.from_numpy(np.ascontiguousarray(one)) for one in (*of_items, signals)]
        return vectors.numpy(), bundle.ranker(vectors, *users, *rest).numpy()
