"""How alike two ranked lists are: pure functions of item ids, best first, none twice.

Overlap at k looks at the first k alone, as a shelf does. Rank-biased overlap (RBO: Webber, Moffat and Zobel, *A
similarity measure for indefinite rankings*, ACM TOIS 28(4), 2010) weighs every depth, the first most, and takes lists
of different items and lengths. Kendall's tau looks at the order of what both have, and at nothing else.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def overlap(a: Sequence[str], b: Sequence[str], k: int) -> float | None:
    """The share, 0 to 1, of the first `k` that both lists have; None where neither list has `k` items.

    A list shorter than `k` lacks the rest: what the other has there counts as different.
    """
    if k < 1 or max(len(a), len(b)) < k:
        return None
    return len(set(a[:k]) & set(b[:k])) / k


def rank_biased_overlap(a: Sequence[str], b: Sequence[str], p: float = 0.9) -> float:
    """Extrapolated RBO (RBO_ext, equation 32 of the paper), 0 to 1; two empty lists are alike (1).

    `p`, above 0 and below 1, is how likely a reader goes on to the next item: at 0.9 the first ten carry 86 % of the
    weight. What lies beyond the lists is taken to agree as much as what was seen.
    """
    short, long = sorted((a, b), key=len)
    if not short:
        return 1.0 if not long else 0.0
    seen_short: set[str] = set()
    seen_long: set[str] = set()
    common, common_at_short, total, weight = 0, 0, 0.0, 1.0
    for depth, item in enumerate(long, start=1):
        weight *= p
        seen_long.add(item)
        common += item in seen_short
        if depth <= len(short):
            other = short[depth - 1]
            seen_short.add(other)
            common += other in seen_long
            common_at_short = common
        agreement = common / depth
        if depth > len(short):
            agreement += common_at_short * (depth - len(short)) / (len(short) * depth)
        total += agreement * weight
    beyond = (common - common_at_short) / len(long) + common_at_short / len(short)
    return (1 - p) / p * total + beyond * weight


def kendall_tau(a: Sequence[str], b: Sequence[str]) -> float | None:
    """Kendall's tau of the items in both lists, -1 (turned round) to 1 (same order); None for fewer than two."""
    place = {item: position for position, item in enumerate(b)}
    places = [place[item] for item in a if item in place]
    pairs = len(places) * (len(places) - 1) // 2
    if not pairs:
        return None
    discordant = 0
    sorted_so_far: list[int] = []
    for position in places:
        discordant += len(sorted_so_far) - bisect_left(sorted_so_far, position)
        insort(sorted_so_far, position)
    return 1 - 2 * discordant / pairs
