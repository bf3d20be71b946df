"""Two answers to one request, and what many such pairs come to.

What is compared is the model's doing only where both sides had the same to do without: where `degraded` differs, the
pair is added up apart, because load makes answers differ so, not the model.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from load.rankings import kendall_tau, overlap, rank_biased_overlap
from load.sketch import Sketch

DEPTHS = (1, 5, 10)
CHANGED = 10
# Groups beyond so many are added up as one: a segment with a value of its own for every user is no segment.
MOST_GROUPS = 100
OTHERS = "(others)"
NO_SEGMENT = "(none)"


class Item(msgspec.Struct, frozen=True, gc=False):
    """One item of an answer."""

    item_id: str
    score: float
    source: str = ""


class Model(msgspec.Struct, frozen=True):
    """Which model answered."""

    name: str
    version: str


class Reply(msgspec.Struct, frozen=True):
    """An answer of 200, as far as it is compared. `inputs` are there where the request said `explain`."""

    items: list[Item]
    degraded: list[str] = []
    model: Model | None = None
    inputs: dict[str, Any] = {}


class Asked(msgspec.Struct, frozen=True):
    """A request as reports name it: the `number`-th of the log (from 1), its user id or None, its placement.

    `chosen`: the items are the answer's choice. Of a rank they are the caller's, and only their order is the answer's.
    """

    number: int
    user: str | None
    placement: str
    chosen: bool = True


class Agreement:
    """How alike the answers of some pairs were, added up."""

    def __init__(self) -> None:
        self.pairs = self.identical = 0
        self._overlaps: dict[str, tuple[int, float]] = {}
        self._rbo = self._tau = 0.0
        self._taus = 0
        self._shift = Sketch()

    def add(self, a: Reply, b: Reply, chosen: bool = True) -> float:
        """Count a pair in; returns its rank-biased overlap. Whole lists overlap by definition if nobody has chosen."""
        scores_a, scores_b = _scores(a), _scores(b)
        ids_a, ids_b = list(scores_a), list(scores_b)
        self.pairs += 1
        self.identical += ids_a == ids_b
        for depth in DEPTHS:
            self._add_overlap(str(depth), overlap(ids_a, ids_b, depth))
        if chosen:
            whole = max(len(ids_a), len(ids_b))
            self._add_overlap("count", overlap(ids_a, ids_b, whole) if whole else 1.0)
        rbo = rank_biased_overlap(ids_a, ids_b)
        self._rbo += rbo
        tau = kendall_tau(ids_a, ids_b)
        if tau is not None:
            self._tau += tau
            self._taus += 1
        for item, score in scores_a.items():
            if item in scores_b:
                self._shift.add(abs(score - scores_b[item]))
        return rbo

    def figures(self) -> dict[str, Any]:
        """All of it as JSON; shares from 0 to 1, None where there is nothing to tell."""
        overlaps = {k: total / count for k, (count, total) in self._overlaps.items()}
        return {
            "pairs": self.pairs,
            "identical": self.identical / self.pairs if self.pairs else None,
            "overlap": {k: overlaps.get(k) for k in (*map(str, DEPTHS), "count")},
            "rbo": self._rbo / self.pairs if self.pairs else None,
            "tau": self._tau / self._taus if self._taus else None,
            "score_shift": {"mean": self._shift.mean(), "p95": self._shift.quantile(0.95)},
        }

    def _add_overlap(self, k: str, value: float | None) -> None:
        if value is not None:
            count, total = self._overlaps.get(k, (0, 0.0))
            self._overlaps[k] = (count + 1, total + value)


class Comparison:
    """Adds up pairs of answers: all, by placement, by segment, and the users whose lists changed most."""

    def __init__(self) -> None:
        self.all, self.apart = Agreement(), Agreement()
        self.requests = self.failed = 0
        self.errors: dict[str, Counter[str]] = {"a": Counter(), "b": Counter()}
        self.degraded: dict[str, Counter[str]] = {"a": Counter(), "b": Counter()}
        self.models: dict[str, Counter[str]] = {"a": Counter(), "b": Counter()}
        self._placements: dict[str, Agreement] = {}
        self._segments: dict[str, Agreement] = {}
        self._changed: list[dict[str, Any]] = []

    def add(self, asked: Asked, a: Reply | str, b: Reply | str, segment: str | None) -> None:
        """Count a pair in: each side's answer, or why there is none. `segment` None: nobody asked for segments."""
        self.requests += 1
        for side, reply in (("a", a), ("b", b)):
            self._note(side, reply)
        if isinstance(a, str) or isinstance(b, str):
            self.failed += 1
            return
        if set(a.degraded) != set(b.degraded):
            self.apart.add(a, b, asked.chosen)
            return
        rbo = self.all.add(a, b, asked.chosen)
        _group(self._placements, asked.placement).add(a, b, asked.chosen)
        if segment is not None:
            _group(self._segments, segment).add(a, b, asked.chosen)
        if [one.item_id for one in a.items] != [one.item_id for one in b.items]:
            self._keep_changed(asked, a, b, rbo, segment)

    def figures(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "requests": self.requests,
            "failed_pairs": self.failed,
            "errors": {side: dict(counts.most_common()) for side, counts in self.errors.items()},
            "degraded": {side: dict(counts.most_common()) for side, counts in self.degraded.items()},
            "models": {side: dict(counts.most_common()) for side, counts in self.models.items()},
            "all": self.all.figures(),
            "degraded_differently": self.apart.figures(),
            "placements": _by_size("placement", self._placements),
            "segments": _by_size("segment", self._segments),
            "most_changed": self._changed,
        }

    def _note(self, side: str, reply: Reply | str) -> None:
        if isinstance(reply, str):
            self.errors[side][reply] += 1
            return
        self.degraded[side].update(set(reply.degraded))
        if reply.model is not None:
            self.models[side][f"{reply.model.name} {reply.model.version}"] += 1

    def _keep_changed(self, asked: Asked, a: Reply, b: Reply, rbo: float, segment: str | None) -> None:
        """A user stands in the list once, with the request that changed most."""
        worst = self._changed
        if len(worst) == CHANGED and rbo >= worst[-1]["rbo"]:
            return
        same = [one for one in worst if asked.user is not None and one["user"] == asked.user]
        if same and rbo >= same[0]["rbo"]:
            return
        for one in same:
            worst.remove(one)
        entry = {
            "request": asked.number,
            "user": asked.user,
            "placement": asked.placement,
            "segment": segment,
            "rbo": rbo,
        }
        worst.append(entry | {"a": msgspec.to_builtins(a.items), "b": msgspec.to_builtins(b.items)})
        worst.sort(key=lambda one: (one["rbo"], one["request"]))
        del worst[CHANGED:]


def _scores(reply: Reply) -> dict[str, float]:
    """Score by item id in the answer's order; of an item that comes twice the first counts."""
    scores: dict[str, float] = {}
    for item in reply.items:
        scores.setdefault(item.item_id, item.score)
    return scores


def _group(groups: dict[str, Agreement], name: str) -> Agreement:
    if name not in groups and len(groups) >= MOST_GROUPS:
        name = OTHERS
    return groups.setdefault(name, Agreement())


def _by_size(label: str, groups: dict[str, Agreement]) -> list[dict[str, Any]]:
    ordered = sorted(groups.items(), key=lambda group: (-group[1].pairs, group[0]))
    return [{label: name} | agreement.figures() for name, agreement in ordered]
