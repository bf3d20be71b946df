"""Which version answers a request, and as a member of which group. docs/models.md is for readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ranking.errors import UnknownVersion
from service.figures import Counts
from service.placements import Placement
from service.query import LoadedModel
from service.split import Split, position
from service.wire import RankRequest, RecommendRequest

DEFAULT, PINNED = "default", "pinned"
"""Groups: nothing is split, or the request insists on a version. A split's groups have the names of its arms."""
ROLLOUT, CONTROL = "rollout", "control"
"""Groups while a promotion goes in steps: who has the new version already, and who has not."""


class UnderWay(Protocol):
    """A promotion in steps: `version` answers a `share`, 0 to 1, of the shoppers. `compares`: whether its answers must
    agree with production's."""

    @property
    def version(self) -> str: ...

    @property
    def share(self) -> float: ...

    @property
    def compares(self) -> bool: ...


class ModelVersions(Protocol):
    """What is loaded. It may change between two calls, and each call sees it as it is then."""

    @property
    def rollouts(self) -> Mapping[str, UnderWay]: ...

    def resolve(self, model: str, version: str | None = None) -> LoadedModel: ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """The version that answers, and the group that it does so for."""

    model: LoadedModel
    group: str


class Router:
    """Chooses among the loaded versions. `missing` counts how often an arm named a version that is not loaded, as when
    its alias moved to one or went: what the model stands on answered then."""

    def __init__(self, versions: ModelVersions, placements: Mapping[str, Placement], missing: Counts) -> None:
        self.versions = versions
        self.splits = {name: Split(one.split) for name, one in placements.items() if one.split is not None}
        self.missing = missing

    def choose(self, placement: Placement, request: RecommendRequest | RankRequest) -> Chosen:
        """Raises UnknownVersion for one that the request insists on and that is not loaded."""
        versions, model = self.versions, placement.model
        if request.model_version is not None:
            return Chosen(versions.resolve(model, request.model_version), PINNED)
        if (split := self.splits.get(request.placement)) is not None:
            arm = split.arm(position(placement.experiment or request.placement, request))
            return self.arm(request.placement, model, arm, arm)
        if (rollout := versions.rollouts.get(model)) is not None:  # by plain names only: `name@12` is pinned
            if position(f"rollout-{rollout.version}", request) < rollout.share:
                return self.arm(request.placement, model, rollout.version, ROLLOUT)
            return Chosen(versions.resolve(model), CONTROL)
        return Chosen(versions.resolve(model), DEFAULT)

    def arm(self, place: str, model: str, version: str, group: str) -> Chosen:
        """What answers for an arm."""
        try:
            return Chosen(self.versions.resolve(model, version), group)
        except UnknownVersion:
            self.missing.values[place, group] += 1
            return Chosen(self.versions.resolve(model), group)
