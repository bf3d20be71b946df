"""How large a batch should be: learned from the batches that are run, and never waited for.

A batch takes about `fixed + query * n + row * rows` seconds. The policy measures that when a version is warmed up and
goes on fitting it, asks which size is the smallest whose cost a query is near the least, and lets a batch grow to the
time that such a one takes: so a query of 2,000 candidates weighs more than one of 20, and where company does not make a
query cheaper there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from ranking.batch import Query

MEMORY = 200
"""Batches after which one weighs half as much in the fit."""
PRIOR = 0.01
"""What the measurements at warm-up weigh at the least beside later ones: where only single queries come, they alone
hold other sizes."""
WORTH = 1.03
"""A size is worth having when its cost a query is within this of the least."""
SHARE, INLINE_SHARE = 0.5, 0.1
"""A query may wait for one batch and ride in the next: a batch may take so much of the SLO. One that the event loop
waits for takes less of it: whoever comes meanwhile is not even refused."""
REFIT, EXPLORE = 32, 16
"""Batches between two fits, and between two that are larger than the policy would have them: else it would never see
again what it once found not to pay."""
KEPT = 256
"""Of how many batches it is kept by how much they missed the curve."""

Sample = tuple[int, int, float]
"""Queries, rows (candidates for the ranker, all queries together) and seconds of a batch."""


def rows_of(query: Query) -> int:
    """The candidates that the ranker is to look at: what they cost to find is little beside it."""
    if not query.ranked:
        return 0
    return len(query.rank) if query.rank is not None else sum(query.sources.values())


class Curve:
    """Seconds of a batch by its queries and rows: least squares of the relative error, older samples weighing less."""

    def __init__(self, warm_up: Sequence[Sample] = ()) -> None:
        self.coefficients = np.zeros(3)  # fixed, a query, a row
        self.moments, self.targets = np.zeros((3, 3)), np.zeros(3)
        self.prior_moments, self.prior_targets = np.zeros((3, 3)), np.zeros(3)
        self.fade = 0.5 ** (1 / MEMORY)
        self.seen, self.weight = 0, 0.0
        for sample in warm_up:
            x = features(sample)
            self.prior_moments += np.outer(x, x)
            self.prior_targets += x
        if warm_up:
            self.fit()

    def saw(self, sample: Sample) -> None:
        x = features(sample)
        self.moments = self.moments * self.fade + np.outer(x, x)
        self.targets = self.targets * self.fade + x
        self.seen += 1
        self.weight = self.weight * self.fade + 1.0
        if self.seen % REFIT == 0:
            self.fit()

    def fit(self) -> None:
        """A little ridge keeps apart what the samples do not: rows and queries that have always grown together.

        Nothing takes less time for being more: a part that would come out below 0 (many rows that are cheap beside few
        that are dear) is left out, and the others fitted without it.
        """
        weight = self.fade**self.seen + PRIOR * self.weight
        moments = self.moments + weight * self.prior_moments
        scale = np.sqrt(np.maximum(np.diag(moments), 1e-300))
        ridged = moments / np.outer(scale, scale) + 1e-6 * np.eye(3)
        targets = (self.targets + weight * self.prior_targets) / scale
        parts, found = [0, 1, 2], np.linalg.solve(ridged, targets)
        while (found < 0).any():
            parts.pop(int(found.argmin()))
            found = np.linalg.solve(ridged[np.ix_(parts, parts)], targets[parts])
        self.coefficients = np.zeros(3)
        self.coefficients[parts] = found / scale[parts]

    def seconds(self, queries: int, rows: int) -> float:
        fixed, a_query, a_row = self.coefficients.tolist()
        return max(fixed + a_query * queries + a_row * rows, 0.0)


def features(sample: Sample) -> np.ndarray:
    """So that a perfect fit is 1."""
    return np.array([1.0, sample[0], sample[1]]) / max(sample[2], 1e-9)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a policy has learned of batches of typical queries, as plain figures.

    `size` is the one worth having, `fastest` the one that gets most done. A batch of n queries of `typical_rows` rows
    takes `fixed_s + n * (query_s + row_s * typical_rows)`; `seconds` are those of `sizes` (1, 2, 4, … and the most).
    """

    size: int
    fastest: int
    slo_s: float
    typical_rows: float
    fixed_s: float
    query_s: float
    row_s: float
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def knee(self) -> float | None:
        """The queries at which half of a batch's time is fixed: beyond them company saves less and less.

        0 where nothing is fixed, None where a further query costs nothing.
        """
        further = self.query_s + self.row_s * self.typical_rows
        if self.fixed_s <= 0:
            return 0.0
        return self.fixed_s / further if further > 0 else None


class Policy:
    """How many of those who wait make the next batch. `most` bounds it; `slo_s` is the time that an answer may take,
    `share` how much of that a batch may.

    `typical` is the number of rows of a query, which it goes on learning. Beside the curve it keeps how many `queries`
    have been run, for how long (`busy_s`), with how much of their thread's CPU (`cpu_s`, by the clock `cpu`), and by
    which factors (`missed`, f64[KEPT]) the last batches missed the curve of typical queries.
    """

    def __init__(
        self, curve: Curve, *, most: int, slo_s: float, share: float = SHARE, typical: float = 0.0,
        cpu: Callable[[], float] = float,
    ) -> None:  # fmt: skip
        self.curve, self.most, self.slo_s, self.share, self.cpu = curve, most, slo_s, share, cpu
        self.typical, self.batches = typical, 0
        self.queries, self.busy_s, self.cpu_s = 0, 0.0, 0.0
        self.began_cpu = cpu()
        self.missed: npt.NDArray[np.float64] = np.ones(KEPT)
        self.choose()

    def settled(self) -> Policy:
        """A copy of what is known now, for forecasts."""
        curve = Curve()
        curve.coefficients = self.curve.coefficients
        return Policy(curve, most=self.most, slo_s=self.slo_s, share=self.share, typical=self.typical)

    def figures(self) -> Figures:
        """Of this moment; any thread may ask."""
        curve = self.settled().curve
        fixed_s, query_s, row_s = curve.coefficients.tolist()
        sizes, typical = sizes_to(self.most), self.typical
        seconds = tuple(curve.seconds(size, round(size * typical)) for size in sizes)
        return Figures(self.size, self.fastest, self.slo_s, typical, fixed_s, query_s, row_s, tuple(sizes), seconds)

    def choose(self) -> None:
        """The size worth having for typical queries, and the time that a batch of it takes."""
        sizes = sizes_to(self.most)
        took = {size: self.curve.seconds(size, round(size * self.typical)) for size in sizes}
        fitting = [size for size in sizes if took[size] <= self.share * self.slo_s] or [1]
        least = min(took[size] / size for size in fitting)
        self.size = next(size for size in fitting if took[size] / size <= WORTH * least)
        self.fastest = next(size for size in fitting if took[size] / size == least)
        self.limits_s = {size: took[size] for size in (self.size, self.fastest)}

    def take(self, waiting: Collection[Query]) -> int:
        """How many of the first of those who wait are the next batch; at least one.

        When so many wait that the last would be late, the size that gets most done is better than the one worth having.
        """
        self.batches += 1
        self.began_cpu = self.cpu()
        late = self.drain_s(len(waiting)) > self.share * self.slo_s
        size = self.fastest if late else self.size
        limit = self.limits_s[size]
        if self.batches % EXPLORE == 0:
            size, limit = 2 * size, 2 * limit
        count = rows = 0
        for query in islice(waiting, self.most):
            rows += rows_of(query)
            # A batch of small queries may hold more of them, one of large ones fewer; where company does not pay, none.
            if count and (size == 1 or self.curve.seconds(count + 1, rows) > limit * (1 + 1e-9)):
                break
            count += 1
        return max(count, 1)

    def drain_s(self, waiting: int) -> float:
        """Seconds that so many typical queries take, one batch after the other."""
        return waiting / self.size * self.limits_s[self.size]

    def saw(self, queries: Sequence[Query], seconds: float) -> None:
        rows = sum(rows_of(query) for query in queries)
        mean = rows / len(queries)
        self.typical = mean if not self.typical else self.typical + 0.02 * (mean - self.typical)
        usual = self.curve.seconds(len(queries), round(len(queries) * self.typical))
        self.missed[self.curve.seen % KEPT] = seconds / usual if usual > 0 else 1.0
        self.queries += len(queries)
        self.busy_s += seconds
        cpu = self.cpu()  # several versions may answer parts of what was taken
        self.cpu_s, self.began_cpu = self.cpu_s + cpu - self.began_cpu, cpu
        self.curve.saw((len(queries), rows, seconds))
        if self.curve.seen % REFIT == 0:
            self.choose()


def sizes_to(most: int) -> list[int]:
    """1, 2, 4, … and `most`."""
    sizes = [1]
    while sizes[-1] * 2 <= most:
        sizes.append(sizes[-1] * 2)
    return sizes if sizes[-1] == most else [*sizes, most]


def measure(
    run: Callable[[Sequence[Query]], object], query: Query, most: int, clock: Callable[[], float], tries: int = 3
) -> list[Sample]:
    """The least time of some tries for 1, 2, 4, … and `most` queries of a kind."""
    return [(size, size * rows_of(query), least(run, [query] * size, clock, tries)) for size in sizes_to(most)]


def least(
    run: Callable[[Sequence[Query]], object], queries: Sequence[Query], clock: Callable[[], float], tries: int
) -> float:
    best = float("inf")
    for _ in range(tries):
        began = clock()
        run(queries)
        best = min(best, clock() - began)
    return best
