"""How popular items were on each day, so that the ranker learns from what was known then, not from what came after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch

from ranking.encoding import Encoder
from ranking.errors import TrainingError
from ranking.items import STATS_AT
from ranking.schema import ItemSchema
from ranking.train.data import microseconds, numbers, rows_of

Ints = npt.NDArray[np.int64]


class Popularity:
    """The ranker's item numbers as of T instants, f32[T, N, F]; only the popularity columns differ between them.

    An item without a snapshot at an instant (it had not been touched yet) counts as missing, which for a count is none.
    Raises TrainingError without any snapshot.
    """

    def __init__(self, items: pa.Table, schema: ItemSchema, snapshots: pd.DataFrame, popularity: Sequence[str]) -> None:
        if not len(snapshots):
            raise TrainingError("item_snapshots is empty: the ranker has no popularity to learn from")
        self.instants, instant = np.unique(microseconds(snapshots["event_timestamp"]), return_inverse=True)
        row = rows_of(pa.array(snapshots["item_id"], pa.string()), items["item_id"].combine_chunks())
        raw = np.full((len(self.instants), items.num_rows, len(schema.dense)), np.nan)
        for f, one in enumerate(schema.dense):
            if one.source in popularity:
                raw[instant[row >= 0], row[row >= 0], f] = numbers(snapshots[one.source])[row >= 0]
            else:
                raw[:, :, f] = items[one.source].cast("double").to_numpy()
        encoder = Encoder(schema.dense, ())
        self.dense = torch.from_numpy(np.stack([encoder.dense(one) for one in raw]))

    def at(self, time: Ints) -> Ints:
        """The place of the newest instant at or before each time (microseconds); -1 where there is none."""
        return np.searchsorted(self.instants, time, "right") - 1


def newest(snapshots: pd.DataFrame, items: pa.Table, popularity: Sequence[str], before: pd.Timestamp) -> pa.Table:
    """The catalogue with the popularity columns of each item's newest snapshot before a moment, 0 where it has none,
    and that snapshot's time as STATS_AT."""
    known = snapshots[pd.to_datetime(snapshots["event_timestamp"], utc=True) < before]
    known = known.sort_values("event_timestamp", kind="stable").drop_duplicates("item_id", keep="last")
    row = rows_of(pa.array(known["item_id"], pa.string()), items["item_id"].combine_chunks())
    for name in popularity:
        values = np.zeros(items.num_rows)
        values[row[row >= 0]] = np.nan_to_num(numbers(known[name]))[row >= 0]
        items = items.set_column(items.column_names.index(name), name, pa.array(values.astype(np.int64)))
    stamps = np.zeros(items.num_rows, np.int64)
    stamps[row[row >= 0]] = microseconds(known["event_timestamp"])[row >= 0]
    at = pa.array(stamps, pa.timestamp("us", "UTC"), mask=stamps == 0)
    rest = items.drop_columns([STATS_AT]) if STATS_AT in items.column_names else items
    return rest.append_column(STATS_AT, at)
