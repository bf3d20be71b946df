"""Skew: the features that models are served with, beside those that they were trained on.

An answer costs the request path an append: of each version the latest answers of a second are kept, and once a second,
or when somebody asks, counted into the bins of the bundle's training statistics (`service.skew_counts`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

from ranking.statistics import SAME, SHIFTED, Numbers, psi
from service.answered import Answered
from service.errors import NotReady
from service.skew_counts import MINUTES, Column, Counted, CountedFolder, Described, Window, plain_number
from service.skew_wire import BinShares, Both, Extent, FeatureSkew, SkewReport, Verdict, VersionSkew
from service.tallies import utc
from service.workers_metrics import Family, Sample

EVERY_S = 1.0
LATEST = 16
"""Answers of a version that are looked at a second: more than enough in a minute, and no work to speak of."""
NO_STATISTICS = (
    "no training statistics: the bundle is of before they were kept, or was packed without [statistics]; train or pack "
    "it anew"
)


class Skew:
    """Told and asked on the event loop only. `loaded` are the versions that may answer now, `folder` where the other
    workers' counts are."""

    def __init__(self, loaded: Callable[[], Iterable[Described]], now: Callable[[], float] = time.time) -> None:
        self.loaded, self.now = loaded, now
        self.waiting: defaultdict[tuple[str, str], deque[Answered]] = defaultdict(lambda: deque(maxlen=LATEST))
        self.windows: dict[tuple[str, str], Window] = {}
        self.folder: CountedFolder | None = None
        self.task: asyncio.Task[None] | None = None

    def add(self, answered: Answered) -> None:
        self.waiting[answered.model, answered.version].append(answered)

    def start(self) -> Callable[[], Awaitable[None]]:
        """Counts from now on, and returns what ends it."""
        self.task = asyncio.create_task(self.run())
        return self.stop

    async def run(self) -> None:
        while True:
            self.count()
            if self.folder is not None:
                self.folder.write(os.getpid(), self.mine())
            await asyncio.sleep(EVERY_S)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def count(self) -> None:
        """Takes what waits. A version that is no longer loaded is forgotten."""
        models = {(one.name, one.version): one for one in self.loaded()}
        kept = {key: self.windows.get(key) for key in models}
        self.windows = {key: Window(models[key]) if one is None else one for key, one in kept.items()}
        waiting, minute = dict(self.waiting), self.minute()
        self.waiting.clear()
        for key, answers in waiting.items():
            if key in self.windows:
                named = [one.values for one in answers if one.request.user_id is not None or one.request.context]
                self.windows[key].add(named, len(answers) - len(named), minute)

    def minute(self) -> int:
        return int(self.now() // 60)

    def mine(self) -> list[Counted]:
        minute = self.minute()
        return [one.counted(minute) for one in self.windows.values()]

    def report(self) -> SkewReport:
        """Raises NotReady until a model is loaded."""
        self.count()
        if not self.windows:
            raise NotReady("the model is being loaded")
        others = [] if self.folder is None else self.folder.others(os.getpid())
        found = [one for each in (self.mine(), *others) for one in each]
        versions = [described(one, one.together(found)) for one in self.windows.values()]
        return SkewReport(utc(self.now()), MINUTES * 60.0, 1 + len(others), versions)

    def families(self) -> list[Family]:
        """The same as gauges, of all workers already."""
        versions = self.report().versions if any(True for _ in self.loaded()) else []
        answers, indices, missing, defaulted = list[Sample](), list[Sample](), list[Sample](), list[Sample]()
        for one in versions:
            labels = (("model", one.model), ("version", one.version))
            answers.append(("endcap_skew_answers", labels, float(one.answers)))
            if one.defaulted.live is not None:
                defaulted.append(("endcap_defaulted_share", labels, one.defaulted.live))
            for feature in one.features:
                its = (*labels, ("feature", feature.feature))
                if feature.psi is not None:
                    indices.append(("endcap_feature_psi", its, feature.psi))
                if feature.missing.live is not None:
                    missing.append(("endcap_feature_missing_share", its, feature.missing.live))
        return [
            gauge("Answers of the last hour that skew was looked for in.", "endcap_skew_answers", answers),
            gauge("Population stability index against training, last hour.", "endcap_feature_psi", indices),
            gauge("Share of answers in which a default stood in.", "endcap_feature_missing_share", missing),
            gauge("The same over all features of a version.", "endcap_defaulted_share", defaulted),
        ]


def gauge(text: str, name: str, samples: list[Sample]) -> Family:
    return Family(name, text, "gauge", samples)


def described(window: Window, counted: Counted) -> VersionSkew:
    model, answers = window.model, counted.answers
    features = [feature(column, number, counted) for number, column in enumerate(window.columns)]
    examples = next((one.examples for one in model.statistics.values()), None)
    defaulted = Both(mean([one.missing.live for one in features]), mean([one.missing.trained for one in features]))
    note = None if model.statistics or not features else NO_STATISTICS
    return VersionSkew(
        model.name, model.version, note, answers, counted.anonymous, examples, defaulted, features
    )  # fmt: skip


def mean(shares: Sequence[float | None]) -> float | None:
    known = [one for one in shares if one is not None]
    return sum(known) / len(known) if known else None


def feature(column: Column, number: int, counted: Counted) -> FeatureSkew:
    bins, answers = column.bins, counted.answers
    counts = counted.counts[column.start : column.start + column.width]
    live = [count / answers for count in counts[: len(bins)]] if answers else None
    needed, index, by_chance = bins.needed(), None, None
    if bins.statistics is not None and live is not None:
        filled = sum(a > 0 or b > 0 for a, b in zip(bins.trained, live, strict=True))
        by_chance = (filled - 1) * (1 / answers + 1 / bins.statistics.examples)
        if needed is not None and answers >= needed:
            index = psi(bins.trained, live)
    return FeatureSkew(
        column.reference, index, verdict(index), needed, by_chance,
        Both(live[0] if live else None, bins.trained[0] if bins.trained else None),
        extent(column, counts, counted.least[number], counted.most[number]) if plain_number(column) else None,
        [BinShares(name, live[place] if live else None, bins.trained[place])
         for place, name in enumerate(bins.names if bins.trained else ())],
    )  # fmt: skip


def verdict(index: float | None) -> Verdict | None:
    if index is None:
        return None
    return "same" if index < SAME else "look" if index <= SHIFTED else "shifted"


def extent(column: Column, counts: Sequence[int], least: float, most: float) -> Extent | None:
    """Null where training saw no value."""
    found = column.bins.statistics
    if not isinstance(found, Numbers) or found.least is None or found.most is None:
        return None
    *bins, below, above = counts
    there = sum(bins[1:])
    return Extent(
        least if there else None, most if there else None, found.least, column.low, column.high, found.most,
        below / there if there else None, above / there if there else None,
    )  # fmt: skip
