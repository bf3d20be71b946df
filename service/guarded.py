"""What all workers have counted of one group's answers, and whether it keeps a promotion's rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ranking.registry import Rules, share_of
from service.figures import quantile
from service.workers_metrics import Family


@dataclass(frozen=True, slots=True)
class Seen:
    """Counts: the answers by the seconds that they took (`buckets`: upper bound -> how many, not cumulated), requests,
    of them errors (status 500 and above), answers, of them degraded ones, and the overlap with production's answers,
    summed over as many comparisons. And of the last hour's answers that skew was looked for in (`sampled`), which share
    of their features was defaulted."""

    buckets: dict[float, float] = field(default_factory=dict)
    requests: float = 0
    errors: float = 0
    answers: float = 0
    degraded: float = 0
    compared: float = 0
    overlap: float = 0
    sampled: float = 0
    defaulted: float = 0

    def __sub__(self, before: Seen) -> Seen:
        rest = {bound: count - before.buckets.get(bound, 0) for bound, count in self.buckets.items()}
        counts = {name: getattr(self, name) - getattr(before, name) for name in COUNTS}
        return replace(self, buckets=rest, **counts)

    @property
    def p99_s(self) -> float | None:
        """None where nothing was answered."""
        bounds = sorted(self.buckets)
        counts = [round(self.buckets[bound]) for bound in bounds]
        if not sum(counts):
            return None
        finite = [bound for bound in bounds if bound != float("inf")]
        return quantile(finite, counts, 0.99)

    def figures(self) -> dict[str, tuple[float | None, float]]:
        """Each rule's figure, and over how many it was taken."""
        return {
            "p99_s": (self.p99_s, self.answers),
            "errors": (self.errors / self.requests if self.requests else None, self.requests),
            "degraded": (self.degraded / self.answers if self.answers else None, self.answers),
            "defaulted": (self.defaulted if self.sampled else None, self.sampled),
            "overlap": (self.overlap / self.compared if self.compared else None, self.compared),
        }

    def breach(self, rules: Rules, least: int) -> str | None:
        """The first rule that is not kept, with its figure; None while all are, or while too little was seen."""
        for name, (found, over) in self.figures().items():
            limit = getattr(rules, name)
            if limit is None or found is None or over < least:
                continue
            if found < limit if name == "overlap" else found > limit:
                side = "below" if name == "overlap" else "above"
                return f"{spelled(name, found)}, {side} {spelled(name, limit, named=False)},"
        return None

    def lacking(self, rules: Rules, least: int, *, alone: bool) -> list[str]:
        """The rules of which too little was seen to say that they are kept. `alone`: production answers nobody, so that
        there is nothing to agree with."""
        asked = [name for name in Rules.__struct_fields__ if getattr(rules, name) is not None]
        figures = self.figures()
        return [name for name in asked if figures[name][1] < least and not (alone and name == "overlap")]

    def text(self) -> str:
        return ", ".join(spelled(name, found) for name, (found, _) in self.figures().items() if found is not None)


COUNTS = ("requests", "errors", "answers", "degraded", "compared", "overlap")
"""What grows, so that two looks have a difference."""


def spelled(name: str, value: float, *, named: bool = True) -> str:
    """A figure for people: `p99 12.3 ms`, `errors 0.1 %`."""
    said = f"{value * 1e3:.4g} ms" if name == "p99_s" else share_of(round(value, 5))
    return f"{'p99' if name == 'p99_s' else name} {said}" if named else said


def seen(families: Iterable[Family], model: str, version: str | None, group: str) -> Seen:
    """What was counted of one group of a model's answers; of any version where none is named."""
    numbers = dict.fromkeys((*COUNTS, "sampled", "defaulted"), 0.0)
    cumulated: dict[float, float] = {}
    for family in families:
        for sample, labels, value in family.samples:
            told = dict(labels)
            if told.get("model") != model or version not in (None, told.get("version")):
                continue
            of_group = told.get("group") == group
            if sample == "endcap_requests_total" and of_group:
                numbers["requests"] += value
                numbers["errors"] += value * (told["status"] >= "500")
            elif sample == "endcap_request_seconds_bucket" and of_group:
                bound = float(told["le"])
                cumulated[bound] = cumulated.get(bound, 0) + value
            elif sample == "endcap_answers_total" and of_group:
                numbers["answers"] += value
            elif sample == "endcap_degraded_answers_total" and of_group:
                numbers["degraded"] += value
            elif version is not None and sample in OF_VERSION:
                numbers[OF_VERSION[sample]] += value
    below, buckets = 0.0, {}
    for bound in sorted(cumulated):
        buckets[bound], below = cumulated[bound] - below, cumulated[bound]
    return Seen(buckets, **numbers)


OF_VERSION = {
    "endcap_skew_answers": "sampled",
    "endcap_defaulted_share": "defaulted",
    "endcap_shadow_overlap_count": "compared",
    "endcap_shadow_overlap_sum": "overlap",
}
"""What is counted of a version whoever it answers for."""
