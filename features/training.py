"""What a model is trained on: labels from events, and the features as they were just before each label.

The features come from Feast's point-in-time join. A label's own instant has a feature row too, of the state after it,
so the join looks one microsecond earlier: nothing of the answer can be in the question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa

from features.errors import InputError
from features.progress import Progress, silent
from features.store import open_store, quiet

JUST_BEFORE = pd.Timedelta(microseconds=1)
CHUNK = 50_000
ROW = "__row"


def examples(
    events: pa.Table,
    *,
    weights: Mapping[str, float],
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
) -> pd.DataFrame:
    """Labels: user_id, item_id, event_timestamp (1 us before the event), weight; oldest first.

    Events in [since, until) of a kind that has a weight; at most `limit`, the newest. Raises InputError when none
    is left.
    """
    frame = events.select(["user_id", "item_id", "event", "timestamp"]).to_pandas()
    keep = frame["event"].isin(list(weights))
    if since is not None:
        keep &= frame["timestamp"] >= since
    if until is not None:
        keep &= frame["timestamp"] < until
    frame = frame[keep]
    if not len(frame):
        raise InputError(f"no event of the kinds {', '.join(weights)} to learn from", file="events.parquet")
    if limit is not None:
        frame = frame.iloc[-limit:]
    return pd.DataFrame(
        {
            "user_id": frame["user_id"].to_numpy(),
            "item_id": frame["item_id"].to_numpy(),
            "event_timestamp": (frame["timestamp"] - JUST_BEFORE).array,
            "weight": frame["event"].map(dict(weights)).to_numpy(float),
        }
    )


def point_in_time(
    repo: Path, entities: pd.DataFrame, references: Sequence[str], progress: Progress = silent
) -> pd.DataFrame:
    """Joins features to `entities` (user_id and/or item_id, event_timestamp) as they were at each row's time.

    `references` are `view:feature`, and name the new columns. Rows keep their order; a feature that was not there yet,
    or was past its view's TTL, is null. Feast's join reorders rows and drops repeated ones, so each carries a number.
    """
    store = open_store(repo)
    parts = []
    keys = [name for name in ("user_id", "item_id") if name in entities.columns]
    for start in range(0, len(entities), CHUNK):
        progress(start, len(entities))
        chunk = entities.iloc[start : start + CHUNK]
        distinct = chunk[[*keys, "event_timestamp"]].drop_duplicates().reset_index(drop=True)
        with quiet():
            joined = store.get_historical_features(
                entity_df=distinct.assign(**{ROW: range(len(distinct))}),
                features=list(references),
                full_feature_names=True,
            ).to_df()
        joined = joined.sort_values(ROW).reset_index(drop=True)
        joined = joined.rename(columns={name.replace(":", "__"): name for name in references})
        distinct = pd.concat([distinct, joined[list(references)]], axis=1)
        parts.append(chunk.merge(distinct, on=[*keys, "event_timestamp"], how="left", sort=False))
    progress(len(entities), len(entities))
    return pd.concat(parts, ignore_index=True)
