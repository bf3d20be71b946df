"""Two-tower retrieval: the items nearest to the user's vector."""

from __future__ import annotations

from collections.abc import Sequence

from ranking.bundle import Bundle
from ranking.index import Index
from ranking.sources.base import Batch, Found, search


class Personal:
    """`name` says whose vector it was: `personal` a known user's, `session` one made of this visit's items alone."""

    def __init__(self, name: str = "personal") -> None:
        self.name = name

    def retrieve(self, bundle: Bundle, index: Index, batch: Batch, which: Sequence[int], k: int) -> list[Found]:
        return search(index, batch.users[list(which)], [batch.allowed[i] for i in which], k, batch.probes(which))
