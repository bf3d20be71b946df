"""A placement's rules on a ranked list: what may stand next to what."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt


def cap_categories(category: npt.NDArray[np.int32], cap: int | None, count: int) -> npt.NDArray[np.int64]:
    """The places (int64[<= count], ascending) to show of a list whose items have these categories (int32[n]).

    At most `cap` of one category; the items passed over fill what would else stay empty.
    """
    if cap is None or len(category) <= count:
        return np.arange(min(count, len(category)), dtype=np.int64)
    seen: Counter[int] = Counter()
    chosen: list[int] = []
    passed: list[int] = []
    for place, code in enumerate(category.tolist()):
        seen[code] += 1
        (chosen if seen[code] <= cap else passed).append(place)
        if len(chosen) == count:
            break
    return np.sort(np.array(chosen + passed[: count - len(chosen)], np.int64))
