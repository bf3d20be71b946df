"""Where one request's time went, and who was chosen to answer it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

CHOSEN = ("placement", "model", "version", "group")
"""What `Trace.chosen` holds."""


class Trace:
    """The stages of one request in seconds, and when it began. A stage's time counts also when the stage fails.
    `chosen` says who answers, in the words of CHOSEN: four empty ones until that is known."""

    __slots__ = ("batch_size", "began", "chosen", "clock", "stages")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.began = clock()
        self.stages: dict[str, float] = {}
        self.batch_size = 0
        self.chosen = ("", "", "", "")

    def __call__(self, stage: str) -> Stage:
        return Stage(self, stage)

    def add(self, stages: Mapping[str, float]) -> None:
        for stage, seconds in stages.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def restart(self) -> None:
        """What it waited for until now is not the request's own time."""
        self.began = self.clock()

    def elapsed(self) -> float:
        return self.clock() - self.began

    def server_timing(self) -> str:
        """The `Server-Timing` header: durations in milliseconds (W3C Server Timing)."""
        parts = [f"{stage};dur={seconds * 1e3:.3f}" for stage, seconds in self.stages.items()]
        return ", ".join([*parts, f"total;dur={self.elapsed() * 1e3:.3f}"])


class Stage:
    __slots__ = ("began", "stage", "trace")

    def __init__(self, trace: Trace, stage: str) -> None:
        self.trace, self.stage = trace, stage

    def __enter__(self) -> None:
        self.began = self.trace.clock()

    def __exit__(self, *_: object) -> None:
        self.trace.add({self.stage: self.trace.clock() - self.began})
