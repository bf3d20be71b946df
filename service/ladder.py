"""What an answer does without where time is short, one thing after the other, until what is left fits.

nprobe       a quarter of the index's lists is looked into
candidates   sources propose a quarter of what they may
ranker       the sources' own order stands
popular      popular items, without the engine; of a caller's own items, the caller's order
"""

from __future__ import annotations

from dataclasses import replace

from ranking.batch import Query

NPROBE, CANDIDATES, RANKER, POPULAR = "nprobe", "candidates", "ranker", "popular"
SHARE = 4
"""The share that the first two rungs leave is one in so many."""
SEARCHING = frozenset({"personal", "session", "similar"})
"""The sources that look into the index."""
PRESSURE = (0.75, 0.85, 0.93)
"""How full the gate may be before each rung is taken."""


def rungs(query: Query, nprobe: int) -> tuple[str, ...]:
    """What this query can do without, cheapest loss first, where the index is searched in `nprobe` lists."""
    found = []
    if query.rank is None and nprobe >= SHARE and not SEARCHING.isdisjoint(query.sources):
        found.append(NPROBE)
    if query.rank is None and query.ranked and sum(query.sources.values()) > SHARE * max(query.keep, query.count):
        found.append(CANDIDATES)
    if query.ranked:
        found.append(RANKER)
    return tuple(found)


def least_rung(pressure: float, rungs: int) -> int:
    """How many rungs are given up because the gate is so full; beyond the limit all, and the engine with them."""
    return rungs + 1 if pressure > 1.0 else min(sum(pressure > edge for edge in PRESSURE), rungs)


def without(query: Query, given_up: tuple[str, ...]) -> Query:
    """The query as it is asked when so much is given up."""
    if not given_up:
        return query
    keep, sources = max(query.keep, query.count), query.sources
    if query.rank is None and RANKER in given_up:
        sources = {name: min(most, keep) for name, most in sources.items()}
    elif CANDIDATES in given_up:
        sources = {name: max(most // SHARE, min(most, keep)) for name, most in sources.items()}
    return replace(
        query,
        sources=sources,
        ranked=query.ranked and RANKER not in given_up,
        probe=1 / SHARE if NPROBE in given_up else query.probe,
    )


def popular_only(query: Query) -> Query:
    """The query as `ranking.fallback` answers it."""
    if query.rank is not None:
        return replace(query, ranked=False)
    return replace(query, sources={POPULAR: max(query.keep, query.count)}, ranked=False)
