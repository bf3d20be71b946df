"""What a model is trained on: labels from events, and the features as they were just before each label.

The features come from Feast's point-in-time join. A label's own instant has a feature row too, of the state after it,
so the join looks one microsecond earlier: nothing of the answer can be in the question.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import InputError
from features.progress import Progress, silent
from features.store import open_store, quiet

JUST_BEFORE = pd.Timedelta(microseconds=1)
CHUNK = 20_000
ROW, PLACE = "__row", "place"


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
    keys = [name for name in ("user_id", "item_id") if name in entities.columns]
    features: dict[str, list[str]] = {}
    for reference in references:
        features.setdefault(reference.split(":")[0], []).append(reference)
    with tempfile.TemporaryDirectory(prefix="endcap-join-") as beside:
        with quiet():
            views = {name: store.get_feature_view(name) for name in features}
            narrow = rows_only(store, views, Path(beside))
        found: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in views}
        for start in range(0, len(entities), CHUNK):
            progress(start, len(entities))
            chunk = entities.iloc[start : start + CHUNK]
            distinct = chunk[[*keys, "event_timestamp"]].drop_duplicates().reset_index(drop=True)
            with quiet():
                joined = narrow.get_historical_features(
                    entity_df=distinct.assign(**{ROW: range(len(distinct))}),
                    features=[f"{name}:{PLACE}" for name in views],
                    full_feature_names=True,
                ).to_df()
            joined = joined.sort_values(ROW).reset_index(drop=True)
            distinct = pd.concat([distinct, joined[[f"{name}__{PLACE}" for name in views]]], axis=1)
            whole = chunk.merge(distinct, on=[*keys, "event_timestamp"], how="left", sort=False)
            for name in views:
                found[name].append(whole[f"{name}__{PLACE}"].to_numpy(np.float64, na_value=np.nan))
    result = entities.reset_index(drop=True)
    for name, view in views.items():
        places = np.concatenate(found[name]) if found[name] else np.zeros(0)
        chosen = pa.array(np.nan_to_num(places).astype(np.int64), mask=np.isnan(places))
        for reference in features[name]:
            column = pq.read_table(view.batch_source.path, columns=[reference.split(":")[1]]).column(0)
            result[reference] = column.take(chosen).to_pandas()
    progress(len(entities), len(entities))
    return result[[*entities.columns, *references]]


def rows_only(store: Any, views: Mapping[str, Any], directory: Path) -> Any:
    """A FeatureStore of the same entities, views and TTLs whose only feature is the place of a row in its view's file.

    Feast's join on DuckDB sorts every earlier row of an entity with all its columns for each label: with lists of 70
    items that is a kilobyte each, and gigabytes in all. So the join chooses rows by number, and what they hold is read
    afterwards. Raises InputError for a source that is no Parquet file, or that names its columns otherwise.
    """
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Int64

    config = {"project": store.project, "provider": "local", "registry": str(directory / "registry.db")}
    narrow = FeatureStore(
        config=RepoConfig(
            **config, online_store=None, offline_store={"type": "duckdb"}, entity_key_serialization_version=3
        )
    )
    known: dict[str, Entity] = {one.name: one for one in store.list_entities()}
    made = []
    for name, view in views.items():
        source = view.batch_source
        if not isinstance(source, FileSource) or source.field_mapping or source.created_timestamp_column:
            raise InputError(f"the view {name} must have a Parquet file with its own column names as its source")
        if not Path(source.path).exists():
            raise InputError("no such file; `endcap materialize` makes it", file=source.path)
        stamp = source.timestamp_field
        rows = pq.read_table(source.path, columns=[*view.join_keys, stamp])
        path = directory / f"{name}.parquet"
        pq.write_table(rows.append_column(PLACE, pa.array(np.arange(rows.num_rows))), path)
        made.append(
            FeatureView(
                name=name,
                entities=[known[one] for one in view.entities],
                ttl=view.ttl,
                schema=[Field(name=PLACE, dtype=Int64)],
                source=FileSource(name=f"{name}_places", path=str(path), timestamp_field=stamp),
            )
        )
    narrow.apply([*{one: known[one] for view in views.values() for one in view.entities}.values(), *made])
    return narrow
