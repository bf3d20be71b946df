"""What a model's user inputs looked like in training, by feature, and how far others are from that.

A number's bins end at quantiles of what training saw, each at a value that it saw: `(before, edge]`. A word has a bin
of its own where it is one of the commonest. In every feature the bin 0 is what is missing: what the model's default
stands in for, by the rules of `ranking.values` and `ranking.encoding`.

The measure is the population stability index (Siddiqi, Credit Risk Scorecards, 2006): under 0.1 nothing of note, up to
0.25 worth a look, beyond it shifted. Of `n` and `m` values of one distribution in `b` bins it comes to
`(b - 1) * (1/n + 1/m)` in the mean (Yurdakul, Statistical Properties of Population Stability Index, 2018).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct

from ranking.schema import Categorical, Dense, UserSchema, Value
from ranking.values import number, word

BINS = 10
WORDS = 50
TWICE = 2
"""How often a word must occur to be named: what a single shopper has is nobody's business."""
SAME, SHIFTED = 0.1, 0.25
EMPTY = 1e-4
"""The share that an empty bin is taken to have: a logarithm of 0 would be infinite."""
ROUNDING = 1e-6
LEAST = 200
"""Values below which nothing is said."""


class Numbers(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="numbers"):
    """A number over `examples` rows. `missing` and `shares` (one more than `edges`) are shares of these rows; the
    quantiles are of what was there, None where nothing was."""

    examples: int
    missing: float
    edges: tuple[float, ...]
    shares: tuple[float, ...]
    least: float | None
    p1: float | None
    p99: float | None
    most: float | None

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError(f"{len(self.shares)} shares for {len(self.edges)} edges")
        if any(not low < high for low, high in pairwise(self.edges)):
            raise ValueError("the edges do not rise")
        quantiles = [one for one in (self.least, self.p1, self.p99, self.most) if one is not None]
        if len(quantiles) != (4 if self.missing < 1 else 0) or sorted(quantiles) != quantiles:
            raise ValueError("least, p1, p99 and most do not rise")
        check_shares(self.examples, [self.missing, *self.shares])


class Words(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="words"):
    """A word over `examples` rows: the shares of what is missing, of the commonest words, and of the rest."""

    examples: int
    missing: float
    shares: dict[str, float]
    rest: float

    def __post_init__(self) -> None:
        check_shares(self.examples, [self.missing, *self.shares.values(), self.rest])


Statistics = Numbers | Words


def check_shares(examples: int, shares: Sequence[float]) -> None:
    """Raises ValueError."""
    if examples < 1:
        raise ValueError(f"statistics of {examples} examples")
    if not all(0 <= one <= 1 for one in shares) or abs(sum(shares) - 1) > ROUNDING:
        raise ValueError(f"the shares come to {sum(shares):g}, not 1")


def inputs(schema: UserSchema) -> dict[str, Dense | Categorical]:
    """What statistics are kept of: Feast reference -> the input that it feeds, the first where it feeds two."""
    both: list[Dense | Categorical] = [*schema.dense, *schema.categorical]
    found: dict[str, Dense | Categorical] = {}
    for one in both:
        found.setdefault(one.source, one)
    return found


def made_of(one: Dense | Categorical, value: Value) -> float | str | None:
    """What an input takes a raw value for; None where its default stands in."""
    if isinstance(one, Dense) and one.vocabulary is None:
        x = number(value)
        return x if math.isfinite(x) else None
    text = word(value)
    known = isinstance(one, Categorical) or text in (one.vocabulary or ())
    return text if text and known else None


def statistics_of(schema: UserSchema, columns: Mapping[str, Sequence[Value]]) -> dict[str, Statistics]:
    """Of raw values by Feast reference, a column of at least one row for each of `inputs`. None is missing."""
    found: dict[str, Statistics] = {}
    for source, one in inputs(schema).items():
        values = [made_of(one, value) for value in columns[source]]
        present = [value for value in values if value is not None]
        if isinstance(one, Dense) and one.vocabulary is None:
            found[source] = numbers_of(np.array(present, np.float64), len(values), one.type)
        else:
            found[source] = words_of([str(value) for value in present], len(values))
    return found


def numbers_of(present: np.ndarray[tuple[int], np.dtype[np.float64]], examples: int, kind: str) -> Numbers:
    """`present` float64[n] is what is there of `examples` values. A `Float32` is told as the online store gives it."""
    if kind == "Float32":
        present = present.astype(np.float32).astype(np.float64)
    missing = (examples - len(present)) / examples
    if not len(present):
        return Numbers(examples, 1.0, (), (0.0,), None, None, None, None)
    quantiles = np.quantile(present, np.arange(1, BINS) / BINS, method="inverted_cdf")
    edges = [float(edge) for edge in np.unique(quantiles)]
    least, p1, p99, most = (float(one) for one in np.quantile(present, (0, 0.01, 0.99, 1), method="inverted_cdf"))
    if edges[0] == least:  # many have the least: what is below it is not of them
        edges.insert(0, float(np.nextafter(least, -np.inf)))
    counts = np.bincount(np.searchsorted(edges, present, "left"), minlength=len(edges) + 1)
    return Numbers(
        examples, missing, tuple(edges), tuple((counts / examples).tolist()), least, p1, p99, most
    )  # fmt: skip


def words_of(present: Sequence[str], examples: int) -> Words:
    counts = Counter(present)
    kept = sorted((one for one in counts.items() if one[1] >= TWICE), key=lambda one: (-one[1], one[0]))[:WORDS]
    rest = len(present) - sum(count for _, count in kept)
    shares = {text: count / examples for text, count in kept}
    return Words(examples, (examples - len(present)) / examples, shares, rest / examples)


def check_statistics(schema: UserSchema, statistics: Mapping[str, Statistics]) -> None:
    """Raises ValueError, which names the feature, for statistics of what is no input of the model, or of another kind;
    none at all are in order: a bundle of before they were kept has none."""
    known = inputs(schema)
    for source, found in statistics.items():
        if source not in known:
            raise ValueError(f"statistics of {source}, which is no input of the model")
        if isinstance(found, Numbers) != (isinstance(known[source], Dense) and known[source].vocabulary is None):
            raise ValueError(f"statistics of {source} are of another kind than the input")
    if missing := [one for one in known if statistics and one not in statistics]:
        raise ValueError(f"no statistics of {missing[0]}")


class Bins:
    """The bins of one feature, for others to be counted into: `trained` are the shares that training saw. Without
    `statistics` there are two, what is missing and what is there, and `trained` is empty."""

    def __init__(self, one: Dense | Categorical, statistics: Statistics | None) -> None:
        self.input, self.statistics = one, statistics
        self.words: dict[str, int] = {}
        self.edges: tuple[float, ...] = ()
        self.trained: tuple[float, ...] = ()
        self.names = ["missing", "present"]
        if isinstance(statistics, Numbers):
            self.edges = statistics.edges
            self.trained = (statistics.missing, *statistics.shares)
            self.names = ["missing", *between(statistics)]
        elif isinstance(statistics, Words):
            self.words = {text: place + 1 for place, text in enumerate(statistics.shares)}
            self.trained = (statistics.missing, *statistics.shares.values(), statistics.rest)
            self.names = ["missing", *self.words, "(others)"]

    def __len__(self) -> int:
        return len(self.names)

    def place(self, made: float | str | None) -> int:
        """The bin of what `made_of` said."""
        if made is None:
            return 0
        if isinstance(made, str):
            return self.words.get(made, len(self.names) - 1)
        return bisect_left(self.edges, made) + 1

    def needed(self) -> int | None:
        """How many values it takes until chance alone makes less than half of SAME; None where training saw too few."""
        if self.statistics is None:
            return None
        filled = sum(share > 0 for share in self.trained) - 1
        room = SAME / 2 - filled / self.statistics.examples
        return max(LEAST, math.ceil(filled / room)) if room > 0 else None


def between(one: Numbers) -> list[str]:
    """The names of a number's bins."""
    ends = [f"{edge:.6g}" for edge in one.edges]
    if not ends or one.least is None:
        return ["present"]
    names = [f"≤ {ends[0]}", *(f"{low} to {high}" for low, high in pairwise(ends)), f"> {ends[-1]}"]
    if one.edges[0] < one.least:  # a bin of what is below the least
        first = f"{one.least:.6g}"
        names[:2] = [f"< {first}", first if one.edges[1] == one.least else f"{first} to {ends[1]}"]
    return names


def psi(trained: Sequence[float], live: Sequence[float]) -> float:
    """The population stability index of shares in the same bins."""
    pairs = [(max(a, EMPTY), max(b, EMPTY)) for a, b in zip(trained, live, strict=True) if a or b]
    return sum((b - a) * math.log(b / a) for a, b in pairs)
