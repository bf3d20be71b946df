"""The batch path: one micro-batch of queries, from raw features to ranked items. Reads top to bottom.

It knows no network, no request, and no clock but the one it is handed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from ranking.batch import SIGNALS, Query, Ranked, Rows, Scores
from ranking.bundle import Bundle, made_up
from ranking.compiled import Forward, compiled
from ranking.covisit import Covisits
from ranking.device import place_index
from ranking.filters.eligible import Eligible
from ranking.live import Change, LiveItems
from ranking.schema import Encoder, number
from ranking.sources.base import Batch, Source

USER_SOURCES = frozenset({"personal", "session"})
"""The sources that search with the user's vector: where none is asked and nothing is ranked, the user tower rests."""


class StageClock(Protocol):
    """Times a stage from `with` to its end, also when the stage fails."""

    def __call__(self, stage: str) -> AbstractContextManager[object]: ...


class Candidates:
    """What was retrieved for each query, padded to the longest: rows int64[B, C] (-1 empty), source uint8[B, C]."""

    def __init__(self, rows: Rows, source: npt.NDArray[np.uint8], found: Scores) -> None:
        self.rows, self.source, self.found = rows, source, found


class BatchPath:
    """One bundle on one device. Not for concurrent callers."""

    def __init__(self, bundle: Bundle, sources: Sequence[Source], device: torch.device) -> None:
        self.bundle, self.device = bundle, device
        self.sources = {source.name: source for source in sources}
        user = bundle.manifest.user
        self.schema = user
        self.encoder = Encoder(user.dense, user.categorical)
        self.index = place_index(bundle, device)
        self.live = LiveItems(bundle)
        self.user_tower, self.ranker = self.compile()
        self.lay_out()

    def lay_out(self) -> None:
        """Takes the item table as it is now."""
        bundle, items = self.bundle, self.bundle.items
        self.eligible = Eligible(items)
        self.covisits = Covisits(bundle.neighbors, bundle.neighbor_scores)
        self.scratch: Rows = np.zeros(len(items), np.int64)
        tables = (np.ascontiguousarray(items.embeddings), items.dense, items.categorical)
        self.embeddings, self.item_dense, self.item_categorical = (
            torch.from_numpy(table).to(self.device) for table in tables
        )

    def change(self, changes: Sequence[Change]) -> None:
        """Applies item changes. Call between batches, on the thread that answers."""
        if rows := self.live.apply(changes):
            self.index.add(self.bundle.items.embeddings, len(rows))
        self.lay_out()

    def compile(self) -> tuple[Forward, Forward]:
        """Both models on the device, traced for batches of any size."""
        tower, ranker = self.bundle.user_tower.to(self.device), self.bundle.ranker.to(self.device)
        sizes = [made_up(self.bundle, batch, candidates) for batch, candidates in ((2, 7), (1, 11), (3, 5))]
        users = [[one.to(self.device) for one in user] for user, _ in sizes]
        with torch.inference_mode():
            ranked = [
                [tower(*user), *(one.to(self.device) for one in rest)]
                for user, (_, rest) in zip(users, sizes, strict=True)
            ]
        return compiled(tower, users), compiled(ranker, ranked)

    @torch.inference_mode()
    def recommend(self, queries: Sequence[Query], clock: StageClock) -> list[Ranked]:
        """The best items for each query, in the order of the queries."""
        with clock("encode"):
            inputs, batch = self.encode(queries)
        with clock("filter"):
            excluded = self.exclude(batch)
        with clock("retrieve"):
            candidates = self.retrieve(batch, excluded)
        with clock("score"):
            scores = self.score(inputs, batch, candidates)
        with clock("select"):
            return list(self.select(batch, candidates, scores))

    def encode(self, queries: Sequence[Query]) -> tuple[list[torch.Tensor], Batch]:
        """Raw values -> dense f32[B, D], categorical i64[B, K], history i64[B, L], and user f32[B, E] before them."""
        schema, size, items = self.schema, len(queries), self.bundle.items
        raw = np.array([[number(q.features.get(one.source)) for one in schema.dense] for q in queries], np.float64)
        words = [[q.features.get(one.source) for q in queries] for one in schema.categorical]
        history = np.full((size, schema.history.length), -1, np.int64)
        for i, query in enumerate(queries):
            recent = query.features.get(schema.history.source)
            stored = [str(one) for one in recent] if isinstance(recent, list) else []
            rows = items.rows([*stored, *query.session])
            # The models know the items that they have learned, and no other.
            rows = rows[rows < items.learned][-schema.history.length :]
            history[i, schema.history.length - len(rows) :] = rows
        dense = self.encoder.dense(raw.reshape(size, len(schema.dense)))
        categorical = self.encoder.categorical(words) if words else np.zeros((size, 0), np.int64)
        inputs = [torch.from_numpy(one).to(self.device) for one in (dense, categorical, history)]
        needed = any(query.ranked or not USER_SOURCES.isdisjoint(query.sources) for query in queries)
        users = self.user_tower(*inputs) if needed else torch.zeros(size, self.bundle.manifest.dimension)
        return [users, *inputs], Batch(queries, history, users.cpu().numpy(), [None] * size, self.covisits)

    def exclude(self, batch: Batch) -> list[Rows]:
        """The rows that each query may not be answered with; fills `batch.allowed` where the search must know."""
        items = self.bundle.items
        excluded = [items.rows([*q.exclude, q.item_id] if q.item_id else q.exclude) for q in batch.queries]
        batch.allowed = [
            None if query.rank is not None else self.eligible.mask(query, rows)
            for query, rows in zip(batch.queries, excluded, strict=True)
        ]
        return excluded

    def retrieve(self, batch: Batch, excluded: Sequence[Rows]) -> Candidates:
        """Asks each source for the queries that name it; a candidate belongs to the first source that proposed it."""
        merged: list[Merged] = [from_request(rows) for rows in self.given(batch)]
        asked = [i for i, query in enumerate(batch.queries) if query.rank is None]
        for i, proposed in zip(asked, self.ask(batch, excluded, asked), strict=True):
            merged[i] = merge(proposed, self.scratch)
        # A narrow filter, many exclusions or small quotas: ask again, inside the search and as deep as it takes.
        short = [i for i in asked if len(merged[i][0]) < batch.queries[i].count]
        if short:
            for i in short:
                batch.allowed[i] = self.eligible.exact_mask(batch.queries[i], excluded[i])
            for i, proposed in zip(short, self.ask(batch, excluded, short, deep=True), strict=True):
                merged[i] = merge(proposed, self.scratch)
        return pad(merged)

    def given(self, batch: Batch) -> list[Rows]:
        """The rows of the items that a query brought to be ranked; none where it did not."""
        return [self.bundle.items.rows(query.rank or ()) for query in batch.queries]

    def ask(self, batch: Batch, excluded: Sequence[Rows], asked: Sequence[int], deep: bool = False) -> list[list[Part]]:
        """What the sources of each query propose, in order of precedence; `deep` lifts quotas up to the count."""
        queries = batch.queries
        proposed: dict[int, dict[str, Part]] = {i: {} for i in asked}
        for name in dict.fromkeys(name for i in asked for name in queries[i].sources):
            which = [i for i in asked if name in queries[i].sources]
            quota = {i: max(queries[i].sources[name], queries[i].count * deep) for i in which}
            # Some of what is proposed will be out of stock or excluded. Each query looks at its own depth only, or its
            # answer would depend on its neighbours in the batch.
            depth = {i: quota[i] + len(excluded[i]) + self.eligible.spare(quota[i]) for i in which}
            answers = self.sources[name].retrieve(self.bundle, self.index, batch, which, max(depth.values()))
            for i, (scores, rows) in zip(which, answers, strict=True):
                scores, rows = scores[: depth[i]], rows[: depth[i]]
                keep = self.eligible.keep(rows, batch.allowed[i], excluded[i])
                place = list(queries[i].sources).index(name)
                proposed[i][name] = (place, scores[keep][: quota[i]], rows[keep][: quota[i]])
        return [[proposed[i][name] for name in queries[i].sources] for i in asked]

    def score(self, inputs: list[torch.Tensor], batch: Batch, candidates: Candidates) -> Scores:
        """float32[B, C]: the ranker's score; for a query that wants none, the order in which sources proposed."""
        rows = candidates.rows
        order = -np.broadcast_to(np.arange(rows.shape[1], dtype=np.float32), rows.shape)
        scores = np.where(rows >= 0, order, np.float32(-np.inf))
        ranked = [i for i, query in enumerate(batch.queries) if query.ranked]
        if not ranked or not rows.shape[1]:
            return scores
        part = rows[ranked]
        at = torch.from_numpy(part).to(self.device).clamp(min=0)
        signals = torch.from_numpy(self.signals(batch, ranked, part)).to(self.device)
        users = inputs if len(ranked) == len(rows) else [one[ranked] for one in inputs]
        items = [take(one, at) for one in (self.embeddings, self.item_dense, self.item_categorical)]
        out = self.ranker(*users, at, *items, signals)
        scores[ranked] = np.where(part >= 0, out.float().cpu().numpy(), np.float32(-np.inf))
        return scores

    def signals(self, batch: Batch, ranked: Sequence[int], rows: Rows) -> Scores:
        """float32[B, C, S]: what the sources named in SIGNALS say of each candidate, whoever proposed it."""
        out = np.zeros((*rows.shape, len(SIGNALS)), np.float32)
        for place, i in enumerate(ranked):
            out[place, :, 0] = self.covisits.lookup(rows[place], *batch.covisited(i))
        return out

    def select(self, batch: Batch, candidates: Candidates, scores: Scores) -> Iterator[Ranked]:
        """The best `keep` of each query, ties by the order in which they were proposed."""
        for query, rows, source, found, score in zip(
            batch.queries, candidates.rows, candidates.source, candidates.found, scores, strict=True
        ):
            best = np.argsort(-score, kind="stable")[: max(query.keep, query.count)]
            best = best[rows[best] >= 0]
            shown = score if query.ranked else found
            yield Ranked(rows=rows[best], scores=shown[best], retrieval=found[best], source=source[best])


Merged = tuple[Rows, npt.NDArray[np.uint8], Scores]
"""One query's candidates: rows, the place of the source that proposed each, and that source's score."""


def from_request(rows: Rows) -> Merged:
    return rows, np.zeros(len(rows), np.uint8), np.zeros(len(rows), np.float32)


Part = tuple[int, Scores, Rows]
"""What one source proposed for one query: its place in the query's `sources`, scores float32[n], rows int64[n]."""


def merge(parts: Sequence[Part], scratch: Rows) -> Merged:
    """Joins what the sources proposed for one query, the first proposal of a row standing. `scratch` is int64[N]."""
    rows = np.concatenate([rows for _, _, rows in parts])
    source = np.concatenate([np.full(len(rows), place, np.uint8) for place, _, rows in parts])
    found = np.concatenate([scores for _, scores, _ in parts])
    if len(parts) > 1:
        at = np.arange(len(rows))
        scratch[rows[::-1]] = at[::-1]  # of a row's several places, what is written last stands: its first
        first = scratch[rows] == at
        rows, source, found = rows[first], source[first], found[first]
    return rows, source, found


def take(table: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """table [N, F], at i64[B, C] -> [B, C, F]. `index_select` copies rows in a third of the time of indexing."""
    return table.index_select(0, at.view(-1)).view(*at.shape, -1)


def pad(queries: Sequence[Merged]) -> Candidates:
    """Stacks the queries' candidates into arrays as wide as the longest."""
    if len(queries) == 1:
        rows, source, found = queries[0]
        return Candidates(rows[None], source[None], found[None])
    width = max(len(rows) for rows, _, _ in queries)
    out = Candidates(
        np.full((len(queries), width), -1, np.int64),
        np.zeros((len(queries), width), np.uint8),
        np.zeros((len(queries), width), np.float32),
    )
    for i, (rows, source, found) in enumerate(queries):
        out.rows[i, : len(rows)], out.source[i, : len(rows)], out.found[i, : len(rows)] = rows, source, found
    return out
