"""What `GET /v1/skew` answers. Shares are between 0 and 1, of the answers looked at or of training's examples."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

Verdict = Literal["same", "look", "shifted"]


class Both(Struct, frozen=True):
    """A share as served and in training; null where nothing was, or where the bundle does not say."""

    live: float | None
    trained: float | None


class BinShares(Struct, frozen=True):
    """One bin of a feature: a range of numbers `(from, to]`, a word, or what is missing."""

    bin: str
    live: float | None
    trained: float


class Extent(Struct, frozen=True):
    """The least and the most of a number as served and in training. `below_p1` and `above_p99`: shares of the values
    served beyond those quantiles of training's, each about 0.01 where nothing has changed, or less."""

    live_least: float | None
    live_most: float | None
    trained_least: float
    trained_p1: float
    trained_p99: float
    trained_most: float
    below_p1: float | None
    above_p99: float | None


class FeatureSkew(Struct, frozen=True):
    """One user input. `psi`, the population stability index, and its `verdict` are null below `needed` answers, which
    is null where training's examples are too few, or unknown. `by_chance`: what `psi` would be in the mean of so many
    answers from the very same shoppers. `extent` is null for words."""

    feature: str
    psi: float | None
    verdict: Verdict | None
    needed: int | None
    by_chance: float | None
    missing: Both
    extent: Extent | None
    bins: list[BinShares]


class VersionSkew(Struct, frozen=True):
    """One model version over the window: `answers` looked at, and how many more were `anonymous` (no user id and no
    context, so that every feature is missing by nature). `defaulted`: the share of all inputs that a default stood in
    for. `note` says why nothing can be compared, where that is so."""

    model: str
    version: str
    note: str | None
    answers: int
    anonymous: int
    examples: int | None
    defaulted: Both
    features: list[FeatureSkew]


class SkewReport(Struct, frozen=True):
    """What was served in the last `window_s` seconds beside what training saw; of `workers` processes together."""

    at: datetime
    window_s: float
    workers: int
    versions: list[VersionSkew]
