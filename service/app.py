"""The composition root: the only module that names concrete classes. Start, warm-up, readiness, drain."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from features.errors import FeatureStoreError
from features.facts import Feast
from features.intake import durability
from features.online import OnlineReader
from features.pipeline import Pipeline
from features.popularity import Popularity
from features.store import connection
from ranking.batcher import InlineEngine, LocalEngine
from ranking.bundle import Bundle
from ranking.desk import Desk
from ranking.registry import remote
from ranking.sources.base import Source
from ranking.sources.covisit import Covisit
from ranking.sources.new import New
from ranking.sources.personal import Personal
from ranking.sources.popular import Popular
from ranking.sources.similar import Similar
from ranking.versions import Versions
from service.admission import GradientLimit, Limiter
from service.answer_log import LOG, AnswerLog
from service.answer_lookup import Lookup
from service.budget import Shares
from service.capture import capture_of
from service.config import Config, admin_key, check_sources
from service.engine_watch import EngineWatch
from service.follower import Follower
from service.guard import Guard
from service.http.edge import Runner
from service.http.oip import OipApi
from service.http.server import Api
from service.jobs.opened import open_jobs
from service.jobs.runner import Runner as JobRunner
from service.metrics import Metrics
from service.models_desk import ModelsDesk
from service.newcomer import Entrance, ItemStream
from service.oip_wire import InferenceModels
from service.parts import (
    open_catalogue,
    open_feast_api,
    open_followed,
    open_inference,
    open_intake,
    open_records,
    open_rpc,
)
from service.placements import Placements
from service.prepared import Prepared, prepare
from service.reads import Reads
from service.recommend import Recommender
from service.registry import registry_of
from service.reply import Replies
from service.router import Router
from service.shadow import Shadows
from service.shopper import Shoppers
from service.skew import Skew
from service.travel import Traveller
from service.warm_up import in_time, warm_up

if TYPE_CHECKING:
    from service.rpc.server import RpcServer

SOURCES: tuple[Source, ...] = (Personal(), Personal("session"), Covisit(), Similar(), Popular(), New())
SOURCE_NAMES = tuple(source.name for source in SOURCES)

KEEPALIVE_S = 30.0
LINGER_S = 2.0
"""What is read and thrown away of a refused body, so that its sender reads the refusal before he is closed."""
FEWEST_IN_FLIGHT = 16
"""Where the limit on requests in flight begins at the least."""
YOUNG = 10_000  # objects between two looks for garbage: an answer makes hundreds, and leaves none in a cycle
GRACE_S = 1.0
"""What a request may take beyond its deadline before its version goes."""
STORE_S = 2.0
"""How long a start waits for the store before it goes on without."""


class App:
    """One process of the service. `endcap serve` runs it; tests start and stop it in their own loop."""

    def __init__(
        self, directory: Path, config: Config, prepared: Prepared | None = None, turns: Path | None = None
    ) -> None:
        """`prepared`: what a supervisor has loaded already; `turns`: the file by which its workers take turns.

        Raises ConfigError when a placement names a source that there is not."""
        check_sources(directory, config, SOURCE_NAMES)
        self.directory, self.config, self.prepared, self.turns = directory, config, prepared, turns
        self.metrics = Metrics()
        self.api = Api(
            self.metrics, self.why_not_ready, self.metrics.text, config.service.max_body_bytes, config.batch
        )  # fmt: skip
        self.api.models.key = admin_key(directory, config.admin)
        self.api.feast.opened = config.feast_api.enabled
        self.api.oip = OipApi(self.why_not_ready) if config.oip.enabled else None
        self.reader: OnlineReader | None = None
        self.engine: InlineEngine | LocalEngine | None = None
        self.versions: Versions | None = None
        self.inference: InferenceModels | None = None
        self.skew = self.api.insight.skew = Skew(lambda: [] if self.versions is None else self.versions.all())
        self.metrics.whole = self.skew.families
        self.feast: Feast | None = None
        self.follower: Follower | None = None
        self.log = AnswerLog(directory / LOG, keep_days=config.log.keep_days)
        self.capture = self.metrics.capture = self.api.answers.capture = capture_of(directory, config)
        self.runner: web.AppRunner | None = None
        self.rpc: RpcServer | None = None
        self.jobs: JobRunner | None = None
        self.closing: list[Callable[[], Awaitable[object]]] = []
        self.notices: list[str] = []
        self.draining = False

    async def listen(self, host: str, port: int, *, shared: bool = False) -> int:
        """Opens the port, answering 503 until `load` is done. Returns the port. Raises OSError when it is taken.

        `shared`: other workers listen on it too, and the kernel spreads connections over them.
        """
        self.runner = Runner(
            self.api.application(),
            self.api.refuse,
            self.api.answers,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            handler_cancellation=True,
            shutdown_timeout=self.config.service.drain_s,
        )
        await self.runner.setup()
        self.site = web.TCPSite(self.runner, host, port, backlog=1024, reuse_port=shared or None)
        await self.site.start()
        self.rpc = await open_rpc(self, host, shared=shared)
        address: tuple[str, int] = self.runner.addresses[0]
        return address[1]

    async def load(self) -> None:
        """Loads and checks the bundles, connects, warms up. Raises BundleError or FeaturesError."""
        config = self.config
        if self.capture is not None:  # here, because a thread does not outlive a fork
            self.capture.start()
            self.closing.append(self.capture.close)
        prepared = self.prepared
        if prepared is None:
            prepared = await asyncio.to_thread(prepare, self.directory, config, SOURCES)
        self.feast = prepared.feast
        fit, self.versions, plan = prepared.fit, prepared.versions, prepared.fit.plan
        self.notices += fit.notices
        self.reader = OnlineReader(self.pipeline(), plan, remember=config.features.remember_users)
        self.api.insight.reader = OnlineReader(self.pipeline(), fit.everything)
        applied = open_intake(self, plan.project)
        if config.feast_api.enabled:
            await open_feast_api(self, prepared.feast)
        desk = Desk(prepared.paths, prepared.policy)
        self.prepared, prepared.paths = None, {}  # whoever keeps it would keep versions that are gone
        self.engine = LocalEngine(desk) if config.engine.thread else InlineEngine(desk)
        stream = ItemStream(self.engine)
        items, publisher, catalogue = open_catalogue(self, plan.project, self.engine, stream, self.versions)
        popularity = Popularity(self.pipeline(), plan.project, self.versions.item_ids)
        self.closing.append(popularity.stop)
        followers = [catalogue.loaded]
        if fit.item_view is not None:
            popularity.start(stream.counted)
            followers.append(popularity.loaded)
        self.metrics.waiting, self.metrics.learned = lambda: len(desk.waiting), prepared.policy.figures
        self.engine.start()
        with suppress(TimeoutError):  # no store, no changes: answers go on with the bundle's catalogue
            await asyncio.wait_for(asyncio.gather(*(one.wait() for one in followers)), STORE_S)
        shares = Shares()
        await warm_up(self.engine, self.versions.all(), config.placements, shares)
        limiter = Limiter(GradientLimit(max(in_time(config.placements, shares), FEWEST_IN_FLIGHT)), time.perf_counter)
        self.metrics.gate = limiter
        await self._say_how_durable(self.reader.pipeline)
        self._describe(self.versions.all()[-1])
        shadows = Shadows(self.engine, self.versions, limiter, self.metrics.shadow)
        self.closing.append(shadows.stop)
        replies = Replies(fit.item_view, await open_records(self, plan.project))
        reads = Reads(self.reader, self.api.insight.reader, items, replies)
        reads.take_in([one.key for one in self.versions.all()], fit, [one.manifest.item for one in self.versions.all()])
        registry = open_followed(self)
        entrance = Entrance(
            registry, prepared.feast, prepared.make, config.placements,
            self.engine, stream, publisher, catalogue, popularity, self.turns,
            None if prepared.on_cpu else partial(
                warm_up, self.engine, placements=config.placements, shares=shares, bulk=True
            ),
        )  # fmt: skip
        self.follower = Follower(
            self.versions, entrance, reads, keep=config.models.keep, grace_s=config.service.timeout_ms / 1e3 + GRACE_S,
            describe=self._describe, misfits=fit.misfits,
        )  # fmt: skip
        await self.follower.catch_up()
        self.follower.start()
        self.metrics.versions = self.follower
        self.api.answers.recommender = Recommender(
            Shoppers(self.reader, applied, shares, timeout_s=config.features.timeout_ms / 1e3),
            self.engine,
            Router(self.versions, config.placements, self.metrics.arm_missing),
            Placements(config.placements),
            limiter,
            shares,
            replies,
            shadows,
            most_s=config.service.timeout_ms / 1e3,
        )
        open_jobs(self, self.api.answers.recommender)
        lookup = Lookup(self.log if config.log.enabled else None)
        self.api.travel.travels = Traveller(self.api.answers.recommender, self.versions, lookup)
        own_core = isinstance(self.engine, LocalEngine)
        watch = EngineWatch(prepared.policy, self.metrics.engine, own_core=own_core, workers=config.service.workers)
        watch.start()
        self.closing.append(watch.stop)
        self.api.insight.engine = watch
        guard = Guard(
            registry,
            self.versions.bundles,
            self.metrics.counted,
            self.follower.why_refused,
            writable=partial(registry_of, self.directory, config) if remote(config.models.directory) else None,
        )
        guard.start()
        self.closing.append(guard.stop)
        self.api.models.models = ModelsDesk(self.directory, config, self.loaded)
        self.inference = open_inference(self, self.engine, self.versions)
        # A full collection with torch loaded stops the loop for 0.3 s; what is loaded now stays loaded.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG)

    def loaded(self) -> Versions:
        """What answers now."""
        assert self.versions is not None
        return self.versions

    async def _say_how_durable(self, pipeline: Pipeline) -> None:
        """A notice where a Redis that is not our own may lose what it has accepted."""
        if self.config.features.embedded_valkey or not self.config.events.consume:
            return
        with suppress(TimeoutError, FeatureStoreError):  # many a hosted Redis does not say
            if said := await asyncio.wait_for(durability(pipeline), STORE_S):
                self.notices.append(said)

    def pipeline(self) -> Pipeline:
        """A connection to the online store, closed when the service stops."""
        pipeline = Pipeline(**connection(self.directory / self.config.features.repo))
        self.closing.append(pipeline.close)
        return pipeline

    def _describe(self, bundle: Bundle) -> None:
        """Has the API's description speak of items that there are."""
        self.api.describe([bundle.items.ids[row] for row in bundle.items.popular[:4]])

    async def why_not_ready(self) -> str | None:
        """What stands in the way of answering well; None when nothing does."""
        if self.draining:
            return "shutting down"
        if self.api.answers.recommender is None or self.reader is None:
            return "the model is being loaded"
        try:
            await self.reader.ping()
        except FeatureStoreError as error:
            return str(error)
        return None

    async def stop(self) -> None:
        """Unready first, then no new connections, then what is in flight is answered, then the rest ends."""
        self.draining = True
        await asyncio.gather(self.stop_http(), *([] if self.rpc is None else [self.rpc.stop()]))
        if self.jobs is not None:
            await self.jobs.stop()
        if self.follower is not None:
            await self.follower.stop()
        if self.engine is not None:
            await self.engine.stop()
        for close in reversed(self.closing):
            await close()

    async def stop_http(self) -> None:
        if self.runner is not None:
            await self.site.stop()
            await self.runner.cleanup()
