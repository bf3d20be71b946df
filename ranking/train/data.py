"""What training and evaluation are given: tables that another room has joined. Times are UTC throughout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ranking.encoding import Encoder
from ranking.errors import TrainingError
from ranking.schema import UserSchema

POPULARITY = ("events_24h", "events_7d", "events_30d", "purchases_7d", "purchases_30d")


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Everything up to one moment.

    - `examples`: a label a row: user_id, item_id, event_timestamp (just before the label), weight, and a column for
      each feature reference (`view:feature`) with its raw value as it was then, null where missing.
    - `items`: the catalogue: item_id, title, category, price, in_stock, further numeric or string columns, and each
      column of `popularity` as of that moment.
    - `item_snapshots`: item_id, event_timestamp and the columns of `popularity` at daily instants over the ranker's
      part of the period: what the ranker may know of an item on each day.
    - `interactions`: user_id, item_id, event, timestamp, weight, session_id (null: none).
    - `references`: Feast reference -> Feast type of every user feature. `history` is the one that becomes the model's
      history; `purchased` the one that the already-bought rule reads; `average_price` and `top_category`, where there
      are any, those that an item's price and category are compared with. `max_age_s` is by view.
    """

    examples: pd.DataFrame
    items: pa.Table
    item_snapshots: pd.DataFrame
    interactions: pd.DataFrame
    references: Mapping[str, str]
    max_age_s: Mapping[str, float | None]
    feature_service: str
    history: str = "user_recent:item_ids"
    purchased: str | None = "user_recent:purchased_item_ids"
    average_price: str | None = "user_profile:avg_price"
    top_category: str | None = "user_profile:top_category"
    popularity: Sequence[str] = POPULARITY


class Inputs:
    """The user inputs of a frame's rows as tensors: dense f32[n, D], categorical i64[n, K], history i64[n, L]."""

    def __init__(self, frame: pd.DataFrame, schema: UserSchema, item_ids: pa.Array) -> None:
        encoder = Encoder(schema.dense, schema.categorical)
        values = np.empty((len(frame), len(schema.dense)), np.float64)
        for d, dense in enumerate(schema.dense):
            values[:, d] = numbers(frame[dense.source])
        words = [raw(frame[one.source]) for one in schema.categorical]
        codes = encoder.categorical(words) if words else np.zeros((len(frame), 0), np.int64)
        self.dense = torch.from_numpy(encoder.dense(values))
        self.categorical = torch.from_numpy(codes)
        self.history = torch.from_numpy(histories(frame[schema.history.source], schema.history.length, item_ids))

    def __len__(self) -> int:
        return len(self.dense)

    def take(self, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.dense[which], self.categorical[which], self.history[which]


def raw(column: pd.Series[Any]) -> list[Any]:
    """A column's raw values, None where it holds nothing."""
    values: list[Any] = column.astype(object).where(column.notna(), None).tolist()
    return values


def numbers(column: pd.Series[float]) -> npt.NDArray[np.float64]:
    """A column as float64, NaN where it holds nothing."""
    values: npt.NDArray[np.float64] = pd.to_numeric(column).to_numpy(np.float64, na_value=np.nan)
    return values


def histories(column: pd.Series[str], length: int, item_ids: pa.Array) -> npt.NDArray[np.int64]:
    """Lists of item ids (or nulls) -> int64[n, length] rows, newest last, left-padded with -1; unknown ids drop out."""
    values: Sequence[object] = column.tolist()
    known = [list(value) if isinstance(value, Iterable) else None for value in values]
    lists = pa.array(known, pa.list_(pa.string()))
    owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = rows_of(lists.flatten(), item_ids)
    owner, rows = owner[rows >= 0], rows[rows >= 0]
    ends = np.searchsorted(owner, np.arange(len(column)), "right")
    place = length - (ends[owner] - np.arange(len(owner)))
    out = np.full((len(column), length), -1, np.int64)
    out[owner[place >= 0], place[place >= 0]] = rows[place >= 0]
    return out


def rows_of(ids: pa.Array, item_ids: pa.Array) -> npt.NDArray[np.int64]:
    """Places of `ids` in `item_ids`, -1 for one that is not there."""
    found = pc.fill_null(pc.index_in(ids, value_set=item_ids), -1)
    places: npt.NDArray[np.int64] = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return places


def microseconds(column: pd.Series[pd.Timestamp]) -> npt.NDArray[np.int64]:
    """Times as int64 microseconds since the epoch."""
    moments = pd.to_datetime(column, utc=True).dt.tz_convert(None)
    return moments.to_numpy("datetime64[us]").astype(np.int64)


def check(data: TrainingData) -> None:
    """Raises TrainingError when a column is missing or there is nothing to learn from."""
    wanted = {
        "examples": (data.examples.columns, ["user_id", "item_id", "event_timestamp", "weight", *data.references]),
        "items": (data.items.column_names, ["item_id", "title", "category", "price", "in_stock", *data.popularity]),
        "item_snapshots": (data.item_snapshots.columns, ["item_id", "event_timestamp", *data.popularity]),
        "interactions": (data.interactions.columns, ["user_id", "item_id", "timestamp", "weight", "session_id"]),
    }
    for name, (present, columns) in wanted.items():
        missing = [column for column in columns if column not in present]
        if missing:
            raise TrainingError(f"{name}: no column {', '.join(missing)}")
    if not len(data.examples):
        raise TrainingError("there are no examples to learn from")
