"""What a service needs before it answers, and what its workers can share: models, tables, and what to read of Feast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features.online import ReadPlan
from ranking.batcher import hold_to_one_core
from ranking.device import choose
from ranking.engine import BatchPath
from ranking.sources.base import Source
from ranking.versions import Versions, load_versions
from service.config import Config
from service.fit import fit


@dataclass(slots=True)
class Prepared:
    """`plan` is what the models read of a shopper, `everything` all that Feast offers of one. `paths`: a batch path for
    each version that is loaded."""

    versions: Versions
    plan: ReadPlan
    everything: ReadPlan
    notices: list[str]
    paths: dict[str, BatchPath]
    on_cpu: bool


def prepare(directory: Path, config: Config, sources: Sequence[Source]) -> Prepared:
    """Loads and checks the bundles. Starts no thread, so that a process may fork afterwards (not where a GPU is used).

    Raises BundleError or FeaturesError.
    """
    hold_to_one_core()
    models = directory / config.models.directory
    versions = load_versions(models, (one.model for one in config.placements.values()), config.models.keep)
    plan, everything, notices = fit(directory / config.features.repo, versions)
    device = choose(config.engine.device)
    paths = {bundle.key: BatchPath(bundle, sources, device) for bundle in versions.all()}
    return Prepared(versions, plan, everything, notices, paths, device.type == "cpu")
