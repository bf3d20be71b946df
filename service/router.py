"""Which version answers a request, and as a member of which group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from service.placements import Placement
from service.query import LoadedModel
from service.wire import RankRequest, RecommendRequest

DEFAULT, PINNED = "default", "pinned"
"""Groups: nothing is split, or the request insists on a version."""


class ModelVersions(Protocol):
    def resolve(self, model: str, version: str | None = None) -> LoadedModel: ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """The version that answers, and the group that it does so for."""

    model: LoadedModel
    group: str


class Router:
    """Chooses among the loaded versions."""

    def __init__(self, versions: ModelVersions) -> None:
        self.versions = versions

    def choose(self, placement: Placement, request: RecommendRequest | RankRequest) -> Chosen:
        """Raises UnknownVersion for one that is not loaded."""
        if request.model_version is not None:
            return Chosen(self.versions.resolve(placement.model, request.model_version), PINNED)
        return Chosen(self.versions.resolve(placement.model), DEFAULT)
