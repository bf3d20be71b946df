"""What is counted of answers: of each version for each group on its own, so that one can be held against the other.

Whoever answers has a box of figures, found once an answer; inside it nothing is looked up by who answers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Protocol

from service.figures import AGES, BATCHES, SECONDS, Counts, Histogram, Tally
from service.trace import Trace
from service.wire import Model, Recommendation

BY = ("model", "version", "group")
TENTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
DRIFTS = (-10.0, -3.0, -1.0, -0.3, -0.1, -0.03, -0.01, -0.001, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
COMPARED, DROPPED, FAILED, EXPIRED = "compared", "dropped", "failed", "expired"
"""Outcomes of a shadow: there was no spare capacity, the version failed, or its turn did not come in time."""


class Figures:
    """Of the answers of one version for one group."""

    __slots__ = ("ages", "answers", "batches", "degraded", "degraded_answers", "items", "stages", "views")

    def __init__(self) -> None:
        self.answers = self.degraded_answers = 0
        self.stages: defaultdict[str, Tally] = defaultdict(lambda: Tally(SECONDS))
        self.degraded: Counter[str] = Counter()
        self.views: Counter[tuple[str, str]] = Counter()
        self.ages: defaultdict[str, Tally] = defaultdict(lambda: Tally(AGES))
        self.items: Counter[str] = Counter()
        self.batches = Tally(BATCHES)

    def add(self, answer: Recommendation, trace: Trace) -> None:
        self.answers += 1
        self.degraded_answers += bool(answer.degraded)
        for stage, seconds in trace.stages.items():
            self.stages[stage].add(seconds)
        self.batches.add(trace.batch_size)
        for reason in answer.degraded:
            self.degraded[reason] += 1
        for view, found in answer.features.items():
            self.views[view, found.status] += 1
            if found.age_s is not None:
                self.ages[view].add(found.age_s)
        self.items.update([item.source for item in answer.items])


class AnswerFigures:
    """Of all answers, by (model, version, group)."""

    def __init__(self) -> None:
        self.boxes: defaultdict[tuple[str, str, str], Figures] = defaultdict(Figures)

    def add(self, answer: Recommendation, trace: Trace) -> None:
        self.boxes[labels_of(answer.model)].add(answer, trace)

    def families(self) -> list[Counts | Histogram]:
        """As metrics, by what they count beside the three of `BY`."""
        stages = Histogram("endcap_stage_seconds", "Time in each stage.", [*BY, "stage"], SECONDS)
        degraded = Counts("endcap_degraded", "Answers that had to do without something.", [*BY, "reason"])
        views = Counts("endcap_feature_views", "Feature views read, by status.", [*BY, "view", "status"])
        ages = Histogram(
            "endcap_feature_age_seconds", "Age of a feature view's row when it was served.", [*BY, "view"], AGES
        )
        items = Counts("endcap_items", "Items answered, by source.", [*BY, "source"])
        answers = Counts("endcap_answers", "Answers.", BY)
        lacking = Counts("endcap_degraded_answers", "Answers that had to do without something, each once.", BY)
        batches = Histogram("endcap_engine_batch_size", "Queries in a micro-batch, counted once a query.", BY, BATCHES)
        for by, box in self.boxes.items():
            stages.tallies.update({(*by, stage): tally for stage, tally in box.stages.items()})
            degraded.values.update({(*by, reason): count for reason, count in box.degraded.items()})
            views.values.update({(*by, *which): count for which, count in box.views.items()})
            ages.tallies.update({(*by, view): tally for view, tally in box.ages.items()})
            items.values.update({(*by, source): count for source, count in box.items.items()})
            answers.values[by], lacking.values[by] = box.answers, box.degraded_answers
            batches.tallies[by] = box.batches
        return [stages, degraded, views, ages, items, answers, lacking, batches]


class Named(Protocol):
    name: str
    version: str


class ShadowFigures:
    """What became of shadows (`service.shadow`), and what the comparisons said."""

    def __init__(self) -> None:
        by = ["placement", "model", "version"]
        self.outcomes = Counts("endcap_shadow", "Shadows of answers, by outcome.", [*by, "outcome"])
        self.overlap = Histogram("endcap_shadow_overlap", "Overlap@10 of a shadow and the answer.", by, TENTHS)
        self.rbo = Histogram("endcap_shadow_rbo", "Rank-biased overlap (p = 0.9) of the two.", by, TENTHS)
        self.drift = Histogram(
            "endcap_shadow_score_drift", "By how much more a shadow scores the items of both.", by, DRIFTS
        )
        self.seconds = Histogram("endcap_shadow_seconds", "What the engine took for each.", [*by, "side"], SECONDS)

    def count(self, placement: str, model: Named, outcome: str) -> None:
        self.outcomes.values[placement, model.name, model.version, outcome] += 1

    def compare(
        self, placement: str, model: Named, *, overlap: float, rbo: float, drift: float | None,
        seconds: float, answer_seconds: float,
    ) -> None:  # fmt: skip
        """`drift` is None where no item is in both."""
        by = (placement, model.name, model.version)
        self.overlap.tallies[by].add(overlap)
        self.rbo.tallies[by].add(rbo)
        if drift is not None:
            self.drift.tallies[by].add(drift)
        self.seconds.tallies[*by, "shadow"].add(seconds)
        self.seconds.tallies[*by, "answer"].add(answer_seconds)

    def families(self) -> list[Counts | Histogram]:
        return [self.outcomes, self.overlap, self.rbo, self.drift, self.seconds]


def labels_of(model: Model) -> tuple[str, str, str]:
    return model.name, model.version, model.group
