"""What a source has read, what of it was left out and why: nothing vanishes unsaid."""

from __future__ import annotations

from collections import Counter

from load.errors import LoadError

SHOWN = 20
REASONS = 12
"""Reasons told one by one; a file may have a thousand kinds of events."""


class Account:
    """`read` counts rows of the input in the source's own unit, `dropped` those left out, by reason.

    `strict`: a bad row is refused with LoadError instead.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self.read = 0
        self.dropped: Counter[str] = Counter()
        self.shown: list[str] = []
        self.notes: list[str] = []

    def drop(self, reason: str) -> None:
        """Leave out a row that was not asked for."""
        self.dropped[reason] += 1

    def drop_bad(self, reason: str, place: str) -> None:
        """Leave out a row that can be no request."""
        self.dropped[reason] += 1
        self.show_bad(f"{place}: {reason}")

    def show_bad(self, text: str) -> None:
        """Show a bad row that is counted elsewhere, if it is one of the first 20. Raises LoadError where strict."""
        if self._strict:
            raise LoadError(text)
        if len(self.shown) < SHOWN:
            self.shown.append(text)

    def summary(self) -> str:
        """`7 read, 2 dropped: no user 2`."""
        text = f"{self.read:,} read, {self.dropped.total():,} dropped"
        if not self.dropped:
            return text
        told = [f"{reason} {count:,}" for reason, count in self.dropped.most_common(REASONS)]
        if (more := len(self.dropped) - len(told)) > 0:
            told.append(f"{more:,} more reasons")
        return f"{text}: {', '.join(told)}"
