"""Who of the shoppers is in which arm: by a keyed hash, so that nothing has to be kept to give the same answer again.

A shopper's position in an experiment is a number in [0, 1): the upper 53 bits of the 64-bit BLAKE2b of the shopper's
id, keyed with the experiment's name. The arms of a split take up that line one after the other, in the order of their
names, each as much as it weighs. So where one arm grows at the expense of others nobody leaves it, and a share that
grows keeps all whom it had.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate

from service.wire import RankRequest, RecommendRequest

MOST_SALT = 64
"""Bytes of an experiment's name: BLAKE2b takes no longer key."""


class Split:
    """Arms and what they weigh, together 1."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.arms = sorted(weights)
        self.edges = list(accumulate(weights[arm] for arm in self.arms[:-1]))

    def arm(self, position: float) -> str:
        """Whose the position, in [0, 1), is."""
        return self.arms[bisect_right(self.edges, position)]


def position(experiment: str, request: RecommendRequest | RankRequest) -> float:
    """Where in [0, 1) the shopper stands in this experiment; who has no `user_id` by the first item of the session,
    and who has not even that anywhere, anew each time."""
    who = request.user_id
    if who is None:
        if request.session is None or not request.session.item_ids:
            return random.random()
        who = request.session.item_ids[0]
    return position_of(experiment, who)


def position_of(experiment: str, who: str) -> float:
    found = keyed(experiment).copy()
    found.update(who.encode("utf-8", "surrogatepass"))
    return float((int.from_bytes(found.digest(), "big") >> 11) * 2.0**-53)


@lru_cache(maxsize=256)
def keyed(experiment: str) -> blake2b:
    """The hash before anybody's id has gone into it. To be copied."""
    return blake2b(digest_size=8, key=experiment.encode("utf-8"))
