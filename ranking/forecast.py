"""What a queue and a batch policy make of arrivals, in virtual time: for forecasts, and to compare policies.

One server, which takes the next batch as soon as it is idle, or when a window has passed (the fixed windows of other
servers). Nothing here reads a clock or a random number that it was not handed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ranking.batch import Query

Times = npt.NDArray[np.float64]


class Batching(Protocol):
    """As `ranking.batching.Policy`."""

    def take(self, waiting: Collection[Query]) -> int: ...

    def saw(self, queries: Sequence[Query], seconds: float) -> None: ...


@dataclass(slots=True)
class Played:
    """Seconds from each arrival to its answer, when the last answer came, and the sizes of the batches."""

    latencies: Times
    end: float
    sizes: list[int]

    def quantile(self, q: float) -> float:
        return float(np.quantile(self.latencies, q))


class Waiting(Collection[Query]):
    """Who waits, as queries that are made when somebody looks at them."""

    def __init__(self, numbers: Collection[int], query: Callable[[int], Query]) -> None:
        self.numbers, self.query = numbers, query

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Query]:
        return map(self.query, self.numbers)

    def __contains__(self, one: object) -> bool:
        return any(one == query for query in self)


def play(
    arrivals: Times, query: Callable[[int], Query], seconds: Callable[[Sequence[Query]], float], policy: Batching,
    beside_s: float = 0.0,
) -> Played:  # fmt: skip
    """Dispatch when idle: `seconds` says how long the device takes for a batch, `policy` how many are in it.

    `beside_s`: what the server has to do for each query besides, after its batch, before it is idle.
    """
    waiting: deque[int] = deque()
    latencies, sizes = np.zeros(len(arrivals)), list[int]()
    now, at = 0.0, 0
    while at < len(arrivals) or waiting:
        if not waiting:
            now = max(now, float(arrivals[at]))
        while at < len(arrivals) and arrivals[at] <= now:
            waiting.append(at)
            at += 1
        taken = [waiting.popleft() for _ in range(policy.take(Waiting(waiting, query)))]
        queries = [query(one) for one in taken]
        took = seconds(queries)
        now += took
        policy.saw(queries, took)
        latencies[taken] = now - arrivals[taken]
        sizes.append(len(taken))
        now += beside_s * len(taken)
    return Played(latencies, now, sizes)


def play_window(
    arrivals: Times, query: Callable[[int], Query], seconds: Callable[[Sequence[Query]], float], most: int,
    window_s: float,
) -> Played:  # fmt: skip
    """As fixed windows have it: a batch leaves when it is full, or `window_s` after its first query came."""
    waiting: deque[int] = deque()
    latencies, sizes = np.zeros(len(arrivals)), list[int]()
    idle, at = 0.0, 0
    while at < len(arrivals) or waiting:
        if not waiting:
            waiting.append(at)
            at += 1
        leaves = max(idle, float(arrivals[waiting[0]]) + window_s)
        while at < len(arrivals) and len(waiting) < most and arrivals[at] <= leaves:
            waiting.append(at)
            at += 1
        if len(waiting) >= most:  # full before the window ended
            leaves = max(idle, float(arrivals[waiting[most - 1]]))
        taken = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        idle = leaves + seconds([query(one) for one in taken])
        latencies[taken] = idle - arrivals[taken]
        sizes.append(len(taken))
    return Played(latencies, idle, sizes)
