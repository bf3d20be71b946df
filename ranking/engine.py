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
from ranking.bundle import Bundle
from ranking.counts import LiveCounts
from ranking.covisit import Covisits
from ranking.device import place_index
from ranking.encoding import Encoder, newest_learned
from ranking.filters.eligible import Eligible
from ranking.forward import Forward, forward
from ranking.index import Index
from ranking.items import STATS_AT
from ranking.leaders import leaders
from ranking.live import Change, LiveItems
from ranking.merge import Merged, Merger, Part
from ranking.sources.base import Batch, Source
from ranking.users import Users

USER_SOURCES = frozenset({"personal", "session", "new"})
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

    def __init__(
        self,
        bundle: Bundle,
        sources: Sequence[Source],
        device: torch.device,
        models: Forward | None = None,
        index: Index | None = None,
    ) -> None:
        """`models` runs the bundle's two models; by default the fastest that there is for it on this device. `index`
        finds the nearest items; by default what fits the device."""
        self.bundle, self.models = bundle, models or forward(bundle, device)
        self.sources = {source.name: source for source in sources}
        user = bundle.manifest.user
        self.schema = user
        self.encoder = Encoder(user.dense, user.categorical)
        self.index = index or place_index(bundle, device)
        self.live, self.counts = LiveItems(bundle), LiveCounts(bundle)
        self.eligible, self.merger = Eligible(bundle.items), Merger(len(bundle.items))
        self.covisits = Covisits(bundle.neighbors, bundle.neighbor_scores)

    def lay_out(self, rows: Rows) -> None:
        """Takes the item table as it is now; no other row than `rows` is other than before."""
        bundle = self.bundle
        self.eligible.look_again(bundle.items)
        self.merger.grow(len(bundle.items))
        self.covisits.grow(bundle.neighbors, bundle.neighbor_scores)
        self.models.lay_out(bundle.items, rows)

    def change(self, changes: Sequence[Change]) -> None:
        """Applies item changes: what a shop says of items and, with STATS_AT, what has been counted of them.

        Call between batches, on the thread that answers.
        """
        self.counts.apply({name: facts for name, facts in changes if STATS_AT in facts})
        if new := self.live.apply([(name, facts) for name, facts in changes if STATS_AT not in facts]):
            self.index.add(self.bundle.items.embeddings, len(new))
        # A removed item has no row by its name, and needs none: the change that brings it back lays it out.
        rows = np.unique(
            np.concatenate([self.bundle.items.rows([name for name, _ in changes]), np.array(new, np.int64)])
        )
        if len(rows):
            self.lay_out(rows)

    def recommend(self, queries: Sequence[Query], clock: StageClock) -> list[Ranked]:
        """The best items for each query, in the order of the queries."""
        with clock("encode"):
            users, batch = self.encode(queries)
        with clock("filter"):
            excluded = self.exclude(batch)
        with clock("retrieve"):
            candidates = self.retrieve(batch, excluded)
        with clock("score"):
            scores = self.score(users, batch, candidates)
        with clock("select"):
            return list(self.select(batch, candidates, scores))

    def encode(self, queries: Sequence[Query]) -> tuple[Users, Batch]:
        """The inputs of the user tower, and the users' vectors f32[B, E]."""
        dense, categorical, history = self.read(queries)
        needed = any(query.ranked or not USER_SOURCES.isdisjoint(query.sources) for query in queries)
        users = self.models.users(dense, categorical, history, needed)
        check(users.vectors, "user tower")
        return users, Batch(queries, history, users.vectors, [None] * len(queries), self.covisits)

    def read(self, queries: Sequence[Query]) -> tuple[Scores, Rows, Rows]:
        """Raw values -> dense f32[B, D], categorical i64[B, K], history i64[B, L]."""
        schema, size, items = self.schema, len(queries), self.bundle.items
        numbers = [[q.features.get(one.source) for q in queries] for one in schema.dense]
        words = [[q.features.get(one.source) for q in queries] for one in schema.categorical]
        recent = [q.features.get(schema.history.source) for q in queries]
        seen = [
            [*map(str, one if isinstance(one, list) else ()), *q.session]
            for one, q in zip(recent, queries, strict=True)
        ]
        history = np.full((size, schema.history.length), -1, np.int64)
        rows = items.row_of.rows([name for names in seen for name in names])
        newest_learned(rows, np.array([len(names) for names in seen]), items.learned, history)
        dense = self.encoder.dense(self.encoder.numbers(numbers)) if numbers else np.zeros((size, 0), np.float32)
        categorical = self.encoder.categorical(words) if words else np.zeros((size, 0), np.int64)
        return dense, categorical, history

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
        for i, parts in zip(asked, self.ask(batch, excluded, asked), strict=True):
            merged[i] = self.merge(batch, i, parts, excluded[i])
        # A narrow filter, many exclusions or small quotas: ask again, inside the search and as deep as it takes.
        short = [i for i in asked if len(merged[i][0]) < batch.queries[i].count]
        if short:
            for i in short:
                batch.allowed[i] = self.eligible.exact_mask(batch.queries[i], excluded[i])
            for i, parts in zip(short, self.ask(batch, excluded, short, deep=True), strict=True):
                merged[i] = self.merge(batch, i, parts, excluded[i])
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
                proposed[i][name] = (quota[i], scores[: depth[i]], rows[: depth[i]])
        return [[proposed[i][name] for name in queries[i].sources] for i in asked]

    def merge(self, batch: Batch, i: int, parts: Sequence[Part], excluded: Rows) -> Merged:
        """The candidates of one query: those proposed that it may be answered with."""
        mask = batch.allowed[i]
        return self.merger.merge(parts, self.bundle.items.in_stock if mask is None else mask, excluded)

    def score(self, users: Users, batch: Batch, candidates: Candidates) -> Scores:
        """float32[B, C]: the ranker's score; for a query that wants none, the order in which sources proposed."""
        rows, keep = candidates.rows, [max(query.keep, query.count) for query in batch.queries]
        ranked = [i for i, query in enumerate(batch.queries) if query.ranked]
        if len(ranked) == len(rows):
            return check(self.models.scores(users, rows, self.signals(batch, ranked, rows), keep), "ranker")
        order = -np.broadcast_to(np.arange(rows.shape[1], dtype=np.float32), rows.shape)
        scores = np.where(rows >= 0, order, np.float32(-np.inf))
        if ranked:
            part = rows[ranked]
            kept = [keep[i] for i in ranked]
            scores[ranked] = check(
                self.models.scores(users[ranked], part, self.signals(batch, ranked, part), kept), "ranker"
            )
        return scores

    def signals(self, batch: Batch, ranked: Sequence[int], rows: Rows) -> Scores:
        """float32[B, C, S]: what the sources named in SIGNALS say of each candidate, whoever proposed it."""
        out = np.zeros((*rows.shape, len(SIGNALS)), np.float32)
        if not self.models.wants_signals:
            return out
        for place, i in enumerate(ranked):
            out[place, :, 0] = self.covisits.lookup(rows[place], *batch.covisited(i))
        return out

    def select(self, batch: Batch, candidates: Candidates, scores: Scores) -> Iterator[Ranked]:
        """The best `keep` of each query and its new items, ties by the order in which they were proposed."""
        for query, rows, source, found, score in zip(
            batch.queries, candidates.rows, candidates.source, candidates.found, scores, strict=True
        ):
            keep = max(query.keep, query.count)
            order = leaders(score, len(score) if query.new else keep)
            best = order[:keep][rows[order[:keep]] >= 0]
            shown = score if query.ranked else found
            if query.new and len(order) > keep and len(best):
                behind = order[keep:][rows[order[keep:]] >= self.bundle.items.learned]
                # What the ranker left unscored is behind what it scored.
                shown = np.where(np.isneginf(shown), shown[best[-1]], shown)
                best = np.concatenate([best, behind[: query.new]])
            yield Ranked(rows=rows[best], scores=shown[best], retrieval=found[best], source=source[best])


def check(said: Scores, module: str) -> Scores:
    """What a module said, if it is numbers: a score of NaN would stand anywhere, and JSON has none. Minus infinity
    stands for what is not to be shown. Raises ValueError."""
    if not (said < np.inf).all():
        raise ValueError(f"the {module} answered with NaN or infinity")
    return said


def from_request(rows: Rows) -> Merged:
    return rows, np.zeros(len(rows), np.uint8), np.zeros(len(rows), np.float32)


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
