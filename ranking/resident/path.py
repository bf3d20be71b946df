"""The batch path of a GPU. What a query needs lies on the device, and one copy goes there and one comes back.

That holds for queries that ask one source, the items nearest to the shopper's vector, and want them ranked: filters,
exclusions and stock are part of the search. Others go the way of `ranking.engine`: the sources covisit, popular, new
and similar, their joining, and items that a request brings are the host's; its searches and both models are the
device's.

Answers are the same either way, with one difference in favour of this one: it always finds as many candidates as were
asked for, where the host's, which drops what is out of stock after the search, may find a few less.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch

from ranking.batch import Query, Ranked, Rows
from ranking.bundle import Bundle
from ranking.engine import BatchPath, StageClock, check
from ranking.filters.eligible import MANY_EXCLUDED, as_price
from ranking.forward import TorchForward
from ranking.items import ItemTable
from ranking.live import Change
from ranking.resident.graphs import Graphs, Run
from ranking.resident.program import Program, Shape
from ranking.resident.search import Precision, TorchIndex
from ranking.resident.tables import Tables
from ranking.sources.base import Source
from ranking.sources.personal import Personal

MOST_CANDIDATES, MOST_BATCH = 4096, 1024
"""What one program holds; queries that want more candidates go the host's way, larger batches in parts."""

NOBODY = -2
"""No row, and not what stands for an empty one."""


def batch_path(
    bundle: Bundle, sources: Sequence[Source], device: torch.device, precision: Precision = "float16"
) -> BatchPath:
    """The batch path that fits the device."""
    if device.type == "cpu":
        return BatchPath(bundle, sources, device)
    return ResidentPath(bundle, sources, device, precision)


class ResidentForward(TorchForward):
    """Both models on a device over the tables that the search and the programs read."""

    def __init__(self, bundle: Bundle, index: TorchIndex) -> None:
        self.nearest = index.nearest
        self.items = Tables(bundle, index.nearest)
        for module in (bundle.user_tower, bundle.ranker):
            if hasattr(module, "item_embeddings"):  # one table for both and for the search
                module.item_embeddings = index.nearest.vectors[: len(bundle.items)]
        super().__init__(bundle, index.nearest.device)

    def lay_out(self, items: ItemTable, rows: Rows | None = None) -> None:
        self.items.lay_out(items, rows)
        self.tables = [self.nearest.vectors, self.items.dense, self.items.categorical]


class ResidentPath(BatchPath):
    """One bundle on one device. Not for concurrent callers; graphs are captured on the thread that answers."""

    def __init__(
        self,
        bundle: Bundle,
        sources: Sequence[Source],
        device: torch.device,
        precision: Precision = "float16",
        graphs: Graphs | None = None,
    ) -> None:
        self.programs: dict[Shape, tuple[Program, Run]] = {}
        self.graphs, self.thread = graphs or Graphs(device), threading.get_ident()
        index = TorchIndex(bundle.items.embeddings, device, precision)
        self.nearest, self.on_device = index.nearest, ResidentForward(bundle, index)
        super().__init__(bundle, sources, device, self.on_device, index)

    def change(self, changes: Sequence[Change]) -> None:
        room = self.nearest.room
        super().change(changes)
        self.on_device.items.stock(self.bundle.items.in_stock)
        if self.nearest.room != room:  # the tables that the programs read are gone
            self.prepare_again()

    def recommend(self, queries: Sequence[Query], clock: StageClock) -> list[Ranked]:
        answers: dict[int, Ranked] = {}
        resident = [i for i, query in enumerate(queries) if self.is_resident(query)]
        for start in range(0, len(resident), MOST_BATCH):
            part = resident[start : start + MOST_BATCH]
            answers |= zip(part, self.answer([queries[i] for i in part], clock), strict=True)
        rest = [i for i in range(len(queries)) if i not in answers]
        if rest:
            answers |= zip(rest, super().recommend([queries[i] for i in rest], clock), strict=True)
        return [answers[i] for i in range(len(queries))]

    def is_resident(self, query: Query) -> bool:
        """Whether the device alone can answer it."""
        if query.rank is not None or not query.ranked or len(query.sources) != 1:
            return False
        (name,) = query.sources
        items = self.bundle.items
        few = max(query.sources[name], query.count) <= MOST_CANDIDATES and len(query.exclude) < MANY_EXCLUDED
        return few and isinstance(self.sources[name], Personal) and not (query.new and len(items) > items.learned)

    def answer(self, queries: Sequence[Query], clock: StageClock) -> list[Ranked]:
        """Of queries for which `is_resident` holds."""
        with clock("encode"):
            excluded = [self.bundle.items.rows([*q.exclude, q.item_id] if q.item_id else q.exclude) for q in queries]
            program, run = self.program(self.shape(queries, excluded))
            self.fill(program, queries, excluded)
        with clock("retrieve"):
            program.inputs.send()
            run()
            program.outputs.fetch()
        with clock("select"):
            answers, unsure = self.select_from(program, queries)
        if unsure:  # half precision could not tell which are the best: the host's way searches in float32
            for i, one in zip(unsure, super().recommend([queries[i] for i in unsure], clock), strict=True):
                answers[i] = one
        return answers

    def shape(self, queries: Sequence[Query], excluded: Sequence[Rows]) -> Shape:
        """The smallest program that holds these queries."""
        most = max(wanted(query) for query in queries)
        filtered = any(not query.allowed.everything for query in queries)
        candidates = min(padded(most, 64), self.nearest.room)
        return Shape(
            batch=padded(len(queries), 1),
            candidates=candidates,
            keep=min(padded(max(max(query.keep, query.count) for query in queries), 16), candidates),
            excluded=padded(longest, 16) if (longest := max(map(len, excluded))) else 0,
            categories=padded(len(self.bundle.items.categories), 16) if filtered else 0,
        )

    def program(self, shape: Shape) -> tuple[Program, Run]:
        if threading.get_ident() != self.thread:
            self.thread = threading.get_ident()
            self.prepare_again()
        if shape not in self.programs:
            bundle = self.bundle
            program = Program(
                shape, self.schema, bundle.user_tower, bundle.ranker, self.nearest, self.on_device.items
            )  # fmt: skip
            self.programs[shape] = program, self.graphs.of(program.run)
        return self.programs[shape]

    def prepare_again(self) -> None:
        """All programs that there were, on this thread and over the tables as they are."""
        shapes = list(self.programs)
        self.programs.clear()
        for shape in shapes:
            self.program(shape)

    def fill(self, program: Program, queries: Sequence[Query], excluded: Sequence[Rows]) -> None:
        given, size = program.inputs.arrays, len(queries)
        dense, categorical, history = self.read(queries)
        given["dense"][:size], given["categorical"][:size], given["history"][:size] = dense, categorical, history
        given["quota"][:size] = [wanted(query) for query in queries]
        if program.shape.excluded:
            given["excluded"].fill(NOBODY)
            for i, rows in enumerate(excluded):
                given["excluded"][i, : len(rows)] = rows
        if program.shape.categories:
            for i, query in enumerate(queries):
                self.fill_filter(program, i, query)

    def fill_filter(self, program: Program, i: int, query: Query) -> None:
        given, allowed = program.inputs.arrays, query.allowed
        given["categories"][i] = allowed.categories is None
        if allowed.categories is not None:
            codes = self.eligible.codes
            given["categories"][i, [codes[name] for name in allowed.categories if name in codes]] = True
        given["priced"][i] = allowed.price_min is not None or allowed.price_max is not None
        given["least"][i] = -np.inf if allowed.price_min is None else as_price(allowed.price_min)
        given["most"][i] = np.inf if allowed.price_max is None else as_price(allowed.price_max)

    def select_from(self, program: Program, queries: Sequence[Query]) -> tuple[list[Ranked], list[int]]:
        """The answers, and the places of those of which the search was not sure."""
        size = len(queries)
        out = {name: array[:size].copy() for name, array in program.outputs.arrays.items()}
        for name, module in (("encoded", "user tower"), ("ranked", "ranker")):
            check(np.where(out[name], np.float32(0), np.float32(np.nan)), module)
        source = np.zeros(program.shape.keep, np.uint8)
        answers = []
        for query, n, rows, scores, found in zip(
            queries, out["size"].tolist(), out["rows"], out["scores"], out["found"], strict=True
        ):
            n = min(n, max(query.keep, query.count))
            answers.append(Ranked(rows=rows[:n], scores=scores[:n], retrieval=found[:n], source=source[:n]))
        return answers, np.flatnonzero(~out["sure"]).tolist()


def wanted(query: Query) -> int:
    """How many candidates: as many as its source may propose, and no fewer than it counts on."""
    return max(*query.sources.values(), query.count)


def padded(size: int, least: int) -> int:
    """The next power of two."""
    return max(least, 1 << (size - 1).bit_length())
