"""What has been counted of items, from one loaded version to another that has just been loaded.

The store could say so as well, item by item, which takes seconds where there are many, beside those who wait for it.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

import numpy as np
import numpy.typing as npt

from ranking.bundle import Bundle
from ranking.encoding import Encoder
from ranking.items import NEVER

PIECE = 10_000
"""Items that are looked up at a time."""


def inherit(heir: Bundle, bundle: Bundle, counted: Collection[str]) -> list[str] | None:
    """Takes the counts of the items that both have, where they are newer, into `heir`, of which nothing may have been
    made yet. `counted` are the columns that are counted. Returns the ids that `bundle` does not have; None, and takes
    nothing, where it does not have what `heir` reads.

    A count is told from what the models read of it, which has 24 bits: above a million it may be one off.
    """
    ours, theirs = places(heir, counted), places(bundle, counted)
    usable = [name for name, place in theirs.items() if bundle.manifest.item.dense[place].scale]
    if not set(ours) <= set(usable) or (heir.items.counted and not bundle.items.counted):
        return None
    mine, its = list(ours.values()), [theirs[name] for name in ours]
    encoder = Encoder([heir.manifest.item.dense[place] for place in mine], ())
    columns = [bundle.manifest.item.dense[place] for place in its]
    log = np.array([one.transform == "log1p" for one in columns], bool)
    mean, scale = (np.array([getattr(one, name) for one in columns]) for name in ("mean", "scale"))
    items, source, unknown = heir.items, bundle.items, list[str]()
    left, first = iter(items.ids), 0
    while names := list(islice(left, PIECE)):
        at, rows = source.row_of.rows(names), np.arange(first, first + len(names))
        unknown += [names[place] for place in np.flatnonzero(at < 0)]
        stats_at = source.stats_at[at]
        newer = (at >= 0) & (stats_at != NEVER) & ((items.stats_at[rows] == NEVER) | (stats_at > items.stats_at[rows]))
        at, rows = at[newer], rows[newer]
        said = source.dense[at][:, its] / scale + mean
        raw: npt.NDArray[np.float64] = np.rint(np.where(log, np.expm1(np.where(log, said, 0.0)), said))
        items.dense[np.ix_(rows, mine)] = encoder.dense(raw)
        items.stats_at[rows] = source.stats_at[at]
        if items.counted:
            items.popularity[rows] = source.popularity[at]
        first += len(names)
    if items.counted:
        items.popular[:] = np.argsort(-items.popularity, kind="stable")
    return unknown


def places(bundle: Bundle, counted: Collection[str]) -> dict[str, int]:
    """Where the columns that are counted are among those that the models read."""
    dense = bundle.manifest.item.dense
    return {one.source: at for at, one in enumerate(dense) if one.source in counted and one.vocabulary is None}
