"""What a service needs before it answers, and what its workers can share: models, tables, and what to read of Feast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter, thread_time

from features.facts import Feast
from ranking.batch import Query
from ranking.batcher import hold_to_one_core
from ranking.batching import INLINE_SHARE, SHARE, Curve, Policy, Sample, measure
from ranking.bundle import Bundle
from ranking.device import choose
from ranking.engine import BatchPath
from ranking.registry import Registry
from ranking.resident.path import batch_path
from ranking.sources.base import Source
from ranking.versions import Versions, load_versions
from service.config import Config
from service.fit import Fit, fit
from service.placements import Placement
from service.registry import registry_to_load

CPU_BATCH, GPU_BATCH = 32, 256
"""The largest batches that are tried where the settings do not say."""


@dataclass(slots=True)
class Prepared:
    """`feast`: what Feast says. `fit`: what is read of it for the loaded versions. `paths`: a batch path for each of
    them. `policy`: what was learned of batches on this device. `make`: makes the batch path of another version."""

    feast: Feast
    versions: Versions
    fit: Fit
    paths: dict[str, BatchPath]
    policy: Policy
    on_cpu: bool
    make: Callable[[Bundle], BatchPath]


def prepare(directory: Path, config: Config, sources: Sequence[Source]) -> Prepared:
    """Loads and checks the bundles. Starts no thread, so that a process may fork afterwards (not where a GPU is used).

    Raises BundleError or FeaturesError.
    """
    hold_to_one_core()
    feast = Feast(directory / config.features.repo)
    feast.start()
    try:
        registry, notices = registry_to_load(directory, config)
        versions = load_versions(registry, wanted(config.placements, registry), config.models.keep)
        found = fit(feast.facts(), versions)
        found.notices.extend(notices)
    finally:
        feast.close()
    device = choose(config.engine.device)

    def make(bundle: Bundle) -> BatchPath:
        return batch_path(bundle, sources, device, config.engine.precision)

    paths = {one.key: make(one) for one in versions.all()}
    on_cpu = device.type == "cpu"
    most = config.engine.max_batch or (CPU_BATCH if on_cpu else GPU_BATCH)
    samples = [one for path in paths.values() for one in learn(path, config, most)]
    share = SHARE if config.engine.thread else INLINE_SHARE
    typical = fmean(rows / queries for queries, rows, _ in samples)
    slo_s = config.engine.slo_ms / 1e3
    policy = Policy(Curve(samples), most=most, slo_s=slo_s, share=share, typical=typical, cpu=thread_time)
    return Prepared(feast, versions, found, paths, policy, on_cpu, make)


def wanted(placements: Mapping[str, Placement], registry: Registry) -> list[str]:
    """What placements answer with and what shadows them, as Versions names it, each once. A shadow by an alias that is
    not set is none. Raises RegistryError."""
    found = [model for one in placements.values() for model in one.models]
    for one in placements.values():
        if one.shadow is not None:
            name, version = one.model.partition("@")[0], one.shadow.version
            if version.isdecimal() or version in registry.read(name).aliases:
                found.append(f"{name}@{version}")
    return list(dict.fromkeys(found))


def learn(path: BatchPath, config: Config, most: int) -> list[Sample]:
    """What batches of each placement's queries take, the first runs of all (which compile) not counted."""
    found = []
    ids = path.bundle.items.ids
    for placement in config.placements.values():
        item = ids[0] if placement.needs_item else None
        query = Query({}, placement.sources, 20, session=ids[:3], item_id=item, ranked=placement.ranked)
        path.recommend([query], lambda stage: nullcontext())
        found += measure(
            lambda queries: path.recommend(queries, lambda stage: nullcontext()), query, most, perf_counter
        )
    return found
