"""What a source has read, what of it was left out and why: nothing vanishes unsaid."""

from __future__ import annotations

from collections import Counter

SHOWN = 20
REASONS = 12
"""Reasons told one by one; a file may have a thousand kinds of events."""


class Account:
    """`read` counts rows of the input in the source's own unit, `dropped` those left out, by reason."""

    def __init__(self) -> None:
        self.read = 0
        self.dropped: Counter[str] = Counter()
        self.shown: list[str] = []
        self.notes: list[str] = []

    def drop(self, reason: str, place: str | None = None) -> None:
        """Leave a row out. The first 20 that come with their place are shown."""
        self.dropped[reason] += 1
        if place is not None and len(self.shown) < SHOWN:
            self.shown.append(f"{place}: {reason}")

    def summary(self) -> str:
        """`7 read, 2 dropped: no user 2`."""
        text = f"{self.read:,} read, {self.dropped.total():,} dropped"
        if not self.dropped:
            return text
        told = [f"{reason} {count:,}" for reason, count in self.dropped.most_common(REASONS)]
        if (more := len(self.dropped) - len(told)) > 0:
            told.append(f"{more:,} more reasons")
        return f"{text}: {', '.join(told)}"
