"""The holdout in time: what evaluation keeps from training, and what it asks for.

Everything at or after the cut is held out. A case is one shopper's last visit after the cut: the distinct items of it
are to be foretold from what was known just before its first event. That includes what they did after the cut in earlier
visits, as it would in serving; no model has learned from it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from ranking.errors import TrainingError
from ranking.train.data import TrainingData, microseconds
from ranking.train.popularity import newest
from ranking.train.visits import visit_numbers

JUST_BEFORE = pd.Timedelta(microseconds=1)


def cut_time(timestamps: pd.Series[pd.Timestamp], share: float) -> pd.Timestamp:
    """The time at which the newest `share` of the events begins. Events of that very instant are held out too."""
    ordered = timestamps.sort_values()
    cut = ordered.iloc[int(len(ordered) * (1 - share))]
    if not (ordered < cut).any():
        raise TrainingError(f"no event lies before the newest {share:.0%}: there is nothing to train on")
    return cut


def holdout_cases(interactions: pd.DataFrame, cut: pd.Timestamp) -> pd.DataFrame:
    """One row a user with events at or after the cut: user_id, event_timestamp, item_ids, known.

    `event_timestamp` is 1 us before the user's last visit, the time as of which features are to be joined; `item_ids`
    is what that visit touched; `known` says whether the user had any event before the cut. `interactions` are those of
    the whole time.
    """
    times = pd.to_datetime(interactions["timestamp"], utc=True)
    after = interactions[times >= cut]
    user = pd.factorize(after["user_id"])[0].astype(np.int64)
    session = after["session_id"].to_numpy(object)
    visit = visit_numbers(user, microseconds(after["timestamp"]), None if pd.isna(session).all() else session)
    frame = after[["user_id", "item_id"]].assign(visit=visit, time=times[times >= cut])
    visits = frame.groupby(["user_id", "visit"], sort=True)["time"].min().reset_index()
    last = visits.sort_values(["user_id", "time"], kind="stable").drop_duplicates("user_id", keep="last")
    touched = frame[frame["visit"].isin(last["visit"])].groupby("visit", sort=True)["item_id"]
    truth = touched.agg(lambda ids: sorted(set(ids)))
    before = set(interactions.loc[times < cut, "user_id"])
    return pd.DataFrame(
        {
            "user_id": last["user_id"].to_numpy(),
            "event_timestamp": (last["time"] - JUST_BEFORE).array,
            "item_ids": truth.reindex(last["visit"]).to_numpy(),
            "known": last["user_id"].isin(before).to_numpy(),
        }
    )


def before(data: TrainingData, cut: pd.Timestamp) -> TrainingData:
    """The same data as it was just before the cut: no example, interaction or popularity from it on.

    The popularity of the catalogue becomes that of the newest snapshot before the cut.
    """
    examples = data.examples[pd.to_datetime(data.examples["event_timestamp"], utc=True) < cut - JUST_BEFORE]
    snapshots = data.item_snapshots[pd.to_datetime(data.item_snapshots["event_timestamp"], utc=True) < cut]
    return replace(
        data,
        examples=examples,
        items=newest(data.item_snapshots, data.items, data.popularity, cut),
        item_snapshots=snapshots,
        interactions=data.interactions[pd.to_datetime(data.interactions["timestamp"], utc=True) < cut],
    )
