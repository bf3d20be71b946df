"""Real shoppers of a deployment, for commands that measure: their ids, and what the online store says of them."""

from __future__ import annotations

from features.errors import FeatureStoreError
from features.freshness import Sampler, ViewSpec
from features.online import OnlineReader, ReadPlan
from features.pipeline import Pipeline
from features.registry import service_features
from features.store import connection, open_store
from ranking.batch import Query
from ranking.bundle import Bundle
from service.deployment import Deployment


async def known_ids(pipeline: Pipeline, plan: ReadPlan, sample: int) -> list[str]:
    """Ids of about so many shoppers whom the store knows. Raises FeatureStoreError."""
    specs = [ViewSpec(view.name, "user", plan.join_key, None, None, None, None) for view in plan.views]
    keys = await Sampler(pipeline, plan.project, specs, sample=sample).keys(plan.join_key)
    empty, tail = plan.key(""), plan.project.encode()
    return [key[len(empty) - len(tail) : len(key) - len(tail)].decode() for key in keys]


async def known_shoppers(here: Deployment, bundle: Bundle, most: int) -> list[Query]:
    """At most so many shoppers with the features that the bundle's tower reads; none where no store answers."""
    service = service_features(open_store(here.repo), bundle.schema.feature_service, "user")
    plan = ReadPlan(service.project, service.join_key, list(service.views))
    pipeline = Pipeline(**connection(here.repo))
    reader, found = OnlineReader(pipeline, plan), list[Query]()
    try:
        for one in (await known_ids(pipeline, plan, most))[:most]:
            features = await reader.read(one)
            if features.known:
                found.append(Query(features.values, {"personal": 1}, 1))
    except FeatureStoreError:  # nobody is known then, which the caller says
        return []
    finally:
        await pipeline.close()
    return found
