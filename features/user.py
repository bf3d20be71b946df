"""One user's features as the service sees them: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["present", "missing", "outside_max_age", "unreadable", "not_read"]
"""`not_read`: nobody asked the store, or it did not answer: not even that it is missing is known."""


@dataclass(frozen=True, slots=True)
class ViewState:
    """What was found of one view: its status, and the age of its row in seconds (None where there is no row)."""

    status: Status
    age_s: float | None


@dataclass(frozen=True, slots=True)
class UserFeatures:
    """One user's features. `values` holds what may be used: a view outside its max age, or missing, gives nothing."""

    values: Mapping[str, Any]
    views: Mapping[str, ViewState]

    @property
    def known(self) -> bool:
        """Whether the store holds any usable view of this user."""
        return any(state.status == "present" for state in self.views.values())


@dataclass(frozen=True, slots=True)
class Reading:
    """What the store holds of one view of one entity, used or not: `values` by feature, `event_time` and `age_s` in
    seconds, None where there is no row."""

    view: str
    status: Status
    event_time: float | None
    age_s: float | None
    max_age_s: float | None
    values: dict[str, Any]
