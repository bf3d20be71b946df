"""What goes into the batch path and what comes out: plain data, no network, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ranking.schema import Value

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

SIGNALS = ("covisit",)
"""What sources say of a candidate beyond the inner product, one column each of the ranker's `signals`."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which items may be answered. Every condition given must hold; stock is always asked for."""

    categories: frozenset[str] | None = None
    price_min: float | None = None
    price_max: float | None = None

    @property
    def everything(self) -> bool:
        return self.categories is None and self.price_min is None and self.price_max is None


@dataclass(frozen=True, slots=True)
class Query:
    """One request as the engine sees it.

    `features` maps Feast references to raw values; what is absent or None takes its default. `sources` maps each
    source to the most candidates that it may propose, in order of precedence; where they propose fewer than `count`
    together they are asked again without those limits. `keep` items come back in order of score (default: `count`);
    more let rules pass some over. The best `new` candidates that came after training come back in any case, after
    those. `session` are item ids that this visit has touched, newest last. `rank`, if given, replaces retrieval: just
    these items. Where `ranked` is false the ranker is left out and the sources' own order stands. `probe` is the share
    of an index's lists that is looked into, where it has any.
    """

    features: Mapping[str, Value]
    sources: Mapping[str, int]
    count: int
    keep: int = 0
    new: int = 0
    session: Sequence[str] = ()
    item_id: str | None = None
    allowed: Allowed = field(default_factory=Allowed)
    exclude: Sequence[str] = ()
    rank: Sequence[str] | None = None
    ranked: bool = True
    probe: float = 1.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """The engine's answer to one query: parallel arrays in order of score, best first."""

    rows: Rows  # int64[n]
    scores: Scores  # float32[n]
    retrieval: Scores  # float32[n], the score that the proposing source gave
    source: npt.NDArray[np.uint8]  # [n], the proposing source's place in the query's `sources`


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine says to one query, and where its time went. Seconds; stages are those of the whole batch."""

    ranked: Ranked
    queue_s: float
    stages: Mapping[str, float]
    batch_size: int


class Engine(Protocol):
    """The seam between the edge and inference: in this process, or in another."""

    async def submit(self, version: str, query: Query, *, expires_at: float = inf, bulk: bool = False) -> Answer:
        """`expires_at`, in `time.perf_counter`'s seconds, is when nobody will wait any more; `bulk` lets all others go
        first. Raises EngineExpired, EngineOverloaded, EngineStopped, or EngineError when this query cannot be computed.
        """
        ...

    def wait_s(self) -> float:
        """Seconds that a query would wait before its turn if it came now, as far as the engine knows."""
        ...
