"""How alike two ranked lists are: pure functions of item ids, best first, none twice in a list."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


def overlap(a: Sequence[str], b: Sequence[str], k: int) -> float:
    """The share, 0 to 1, of the first `k` that both lists have. A list shorter than `k` lacks the rest."""
    return len(set(a[:k]) & set(b[:k])) / k


def rank_biased_overlap(a: Sequence[str], b: Sequence[str], p: float = 0.9) -> float:
    """Rank-biased overlap, 0 to 1, extrapolated beyond the lists (equation 32 of Webber, Moffat and Zobel, *A
    similarity measure for indefinite rankings*, ACM TOIS 28(4), 2010); two empty lists are alike (1).

    `p`, above 0 and below 1, is how likely a reader goes on to the next item: at 0.9 the first ten carry 86 % of the
    weight.
    """
    short, long = sorted((a, b), key=len)
    if not short:
        return 0.0 if long else 1.0
    place = {item: depth for depth, item in enumerate(long, start=1)}
    # At which depths one more item is in both lists, each read as far as that.
    common = sorted(max(depth, place[item]) for depth, item in enumerate(short, start=1) if item in place)
    in_short, total = bisect_right(common, len(short)), 0.0
    for depth in range(1, len(long) + 1):
        agreement = bisect_right(common, depth) / depth
        if depth > len(short):  # what the shorter list would have had there, had it gone on as before
            agreement += in_short * (depth - len(short)) / (len(short) * depth)
        total += agreement * p**depth
    beyond = (len(common) - in_short) / len(long) + in_short / len(short)
    return min((1 - p) / p * total + beyond * p ** len(long), 1.0)
