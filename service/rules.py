"""A placement's rules on a ranked list: what may stand next to what."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ranking.batch import Rows
from ranking.items import ItemTable
from service.placements import PlacementRules


def shown(rows: Rows, items: ItemTable, rules: PlacementRules, count: int) -> npt.NDArray[np.int64]:
    """The places (int64[<= count], ascending) to show of ranked rows (int64[n]) of the item table."""
    return choose(items.category[rows], rows >= items.learned, rules, count)


def choose(
    category: npt.NDArray[np.int32], new: npt.NDArray[np.bool_], rules: PlacementRules, count: int
) -> npt.NDArray[np.int64]:
    """The places (int64[<= count], ascending) to show of a ranked list of such categories (int32[n]) and newness."""
    shown = cap_categories(category, rules.category_cap, count)
    return shown if rules.new_every is None else let_in(shown, new, count // rules.new_every)


def let_in(shown: npt.NDArray[np.int64], new: npt.NDArray[np.bool_], least: int) -> npt.NDArray[np.int64]:
    """With at least so many new ones, as long as the list has them: the last of those that are not give way."""
    wanted = least - int(new[shown].sum())
    if wanted <= 0:
        return shown
    hidden = new.copy()
    hidden[shown] = False
    others = np.flatnonzero(hidden)[:wanted]
    if not len(others):
        return shown
    old = shown[~new[shown]]
    return np.sort(np.concatenate([old[: max(0, len(old) - len(others))], shown[new[shown]], others]))


def cap_categories(category: npt.NDArray[np.int32], cap: int | None, count: int) -> npt.NDArray[np.int64]:
    """The places (int64[<= count], ascending) to show of a list whose items have these categories (int32[n]).

    At most `cap` of one category; the items passed over fill what would else stay empty.
    """
    if cap is None or len(category) <= count:
        return np.arange(min(count, len(category)), dtype=np.int64)
    seen: dict[int, int] = {}
    chosen: list[int] = []
    passed: list[int] = []
    for place, code in enumerate(category.tolist()):
        before = seen.get(code, 0)
        if before >= cap:
            passed.append(place)
            continue
        seen[code] = before + 1
        chosen.append(place)
        if len(chosen) == count:
            break
    return np.sort(np.array(chosen + passed[: count - len(chosen)], np.int64))
