"""Adds up outcomes in memory that does not grow with their number, so a run may be as long as one likes."""

from __future__ import annotations

from collections import Counter, defaultdict

from load.histogram import Durations
from load.outcome import Answered, Outcome
from load.server_timing import stages


class Tally:
    """Counts and durations of a run's outcomes from `since` seconds on; what was due earlier is warm-up, and dropped.

    `latency` holds, from the intended time, every good answer (2xx, or OK) and, with the time that it has waited so
    far, every request still waiting at the end: leaving those out would reward a server for hanging. Quick refusals
    and broken connections are not in it, because they would flatter it; they are `errors` and `statuses`, and
    `failures` holds how long they took.
    """

    def __init__(self, since: float = 0.0) -> None:
        self._since = since
        self.planned = self.sent = self.answered = self.ok = 0
        self.statuses: Counter[int | str] = Counter()
        self.errors: Counter[str] = Counter()
        self.degraded_answers = self.unreadable_answers = self.unreadable_timings = 0
        self.degraded: Counter[str] = Counter()
        self.latency, self.since_sent = Durations(), Durations()
        self.failures, self.lateness = Durations(), Durations()
        self.stages: defaultdict[str, Durations] = defaultdict(Durations)

    def add(self, outcome: Outcome) -> None:
        """Take in one outcome."""
        if outcome.at < self._since:
            return
        self.planned += 1
        self.lateness.record(outcome.lateness)
        if outcome.since_sent is not None:
            self.sent += 1
        if outcome.error is not None:
            self.errors[outcome.error] += 1
            waiting = outcome.error in ("unanswered", "unsent")
            (self.latency if waiting else self.failures).record(outcome.latency)
            return
        assert outcome.answer is not None and outcome.since_sent is not None
        self.answered += 1
        self.statuses[outcome.answer.status] += 1
        self._add_stages(outcome.answer.server_timing)
        if outcome.answer.ok:
            self.ok += 1
            self.latency.record(outcome.latency)
            self.since_sent.record(outcome.since_sent)
            self._add_degraded(outcome.answer)
        else:
            self.failures.record(outcome.latency)

    def merge(self, other: Tally) -> None:
        """Take in what another process has added up, of other requests of the same run."""
        for name in ("planned", "sent", "answered", "ok", "degraded_answers", "unreadable_answers"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.unreadable_timings += other.unreadable_timings
        self.statuses.update(other.statuses)
        self.errors.update(other.errors)
        self.degraded.update(other.degraded)
        for name in ("latency", "since_sent", "failures", "lateness"):
            getattr(self, name).merge(getattr(other, name))
        for stage, durations in other.stages.items():
            self.stages[stage].merge(durations)

    def error_share(self) -> float | None:
        """The part of the planned requests, 0 to 1, that did not get a good answer."""
        return 1 - self.ok / self.planned if self.planned else None

    def degraded_share(self) -> float | None:
        """The part of the good answers, 0 to 1, that name something degraded."""
        return self.degraded_answers / self.ok if self.ok else None

    def _add_stages(self, header: str) -> None:
        try:
            for stage, seconds in stages(header):
                self.stages[stage].record(seconds)
        except ValueError:
            self.unreadable_timings += 1

    def _add_degraded(self, answer: Answered) -> None:
        try:
            degraded = answer.degraded()
        except ValueError:
            self.unreadable_answers += 1
            return
        if degraded:
            self.degraded_answers += 1
            self.degraded.update(set(degraded))
