"""Which interactions belong together, and what the label of an example is.

A visit is one session of one user or, where a shop keeps no sessions, events no more than half an hour apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ranking.train.data import microseconds, rows_of

GAP_US = 30 * 60 * 1_000_000

Ints = npt.NDArray[np.int64]


def visit_numbers(user: Ints, time: Ints, session: npt.NDArray[np.object_] | None = None) -> Ints:
    """int64[n]: equal for events of one visit. `time` in microseconds; `session` None where an event has none."""
    order = np.lexsort((time, user))
    gap = np.diff(time[order], prepend=time[order][:1]) > GAP_US
    changed = np.diff(user[order], prepend=user[order][:1]) != 0
    number = np.empty(len(user), np.int64)
    number[order] = np.cumsum(gap | changed)
    if session is None:
        return number
    names = pd.factorize(session)[0].astype(np.int64)  # -1 where there is none
    named = np.unique(user * (names.max() + 2) + names, return_inverse=True)[1] + len(user) + 1
    number = np.where(names >= 0, named, number)
    return number


@dataclass(frozen=True, slots=True)
class Labels:
    """n labels, oldest first: what a shopper touched next, each visit's item once.

    `state` and `start` are rows of the examples: the state just before the label, and the earliest known state of its
    visit. `time` is in microseconds.
    """

    state: Ints
    start: Ints
    item: Ints
    visit: Ints
    user: Ints
    time: Ints
    weight: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.item)

    def where(self, mask: npt.NDArray[np.bool_]) -> Labels:
        return Labels(*(getattr(self, name)[mask] for name in self.__slots__))


def make_labels(examples: pd.DataFrame, interactions: pd.DataFrame, item_ids: pa.Array) -> Labels:
    """A visit's touches of one item are one label, at the first of them and with the greatest weight.

    What follows a view within a visit is often a cart and a purchase of the same item: to predict those from the view
    would teach a model to recommend what is on the screen.
    """
    users = pd.Index(interactions["user_id"].unique())
    user = users.get_indexer(pd.Index(examples["user_id"])).astype(np.int64)
    time = microseconds(examples["event_timestamp"])
    item = rows_of(pa.array(examples["item_id"], pa.string()), item_ids)
    visit = visits_of(interactions, users, user, time)
    weight = examples["weight"].to_numpy(np.float32)
    order = np.lexsort((time, item, visit))
    order = order[(item[order] >= 0) & (user[order] >= 0)]
    new = (np.diff(visit[order], prepend=-1) != 0) | (np.diff(item[order], prepend=-1) != 0)
    first = order[new]
    greatest = np.maximum.reduceat(weight[order], np.flatnonzero(new)) if len(order) else weight[:0]
    start = earliest(visit, time)[first]
    labels = Labels(first, start, item[first], visit[first], user[first], time[first], greatest)
    by_time = np.argsort(labels.time, kind="stable")
    return Labels(*(getattr(labels, name)[by_time] for name in Labels.__slots__))


def visits_of(interactions: pd.DataFrame, users: pd.Index[str], user: Ints, time: Ints) -> Ints:
    """The visit of each (user, time just before an interaction)."""
    theirs = users.get_indexer(pd.Index(interactions["user_id"])).astype(np.int64)
    when = microseconds(interactions["timestamp"])
    session = interactions["session_id"].to_numpy(object)
    numbers = visit_numbers(theirs, when, None if pd.isna(session).all() else session)
    order = np.lexsort((when, theirs))
    # The next interaction of the same user, in one sorted sequence of (user, time).
    span = int(max(when.max(), time.max()) - min(when.min(), time.min())) + 2
    base = int(min(when.min(), time.min()))
    keys = theirs[order] * span + (when[order] - base)
    place = np.searchsorted(keys, user * span + (time - base), "right")
    found: Ints = numbers[order][np.minimum(place, len(order) - 1)]
    return found


def earliest(visit: Ints, time: Ints) -> Ints:
    """int64[n]: the place of the earliest row of each row's visit."""
    order = np.lexsort((time, visit))
    new = np.diff(visit[order], prepend=-1) != 0
    out = np.empty(len(visit), np.int64)
    out[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return out
