"""Parts of a process of the service that are made from several others. `service.app` puts them together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from features.applied import Applied
from features.catalogue import Catalogue
from features.consumer import Consumer
from features.facts import Feast
from features.freshness import Sampler, ViewSpec
from features.intake import Intake
from features.lookup import LookupReader
from features.push import Pusher
from ranking.batcher import InlineEngine, LocalEngine
from ranking.registry import Registry, remote
from ranking.versions import Versions
from service.answer_log import LOG
from service.answered import Answered
from service.events import EventDoor
from service.feast_desk import FeastDesk
from service.freshness import Freshness
from service.inference import Models
from service.items import ItemDoor
from service.lean import keep_grpc_from_forks
from service.mirror_keeper import MirrorKeeper
from service.newcomer import ItemStream
from service.registry import named, registry_of
from service.served_log import ServedLog, restore
from service.tallies import Tallies

if TYPE_CHECKING:
    from service.app import App
    from service.rpc.server import RpcServer


def open_followed(app: App) -> Registry:
    """The registry as it is on this machine; a copy of an object store's is kept up to date from now on."""
    models = app.config.models
    if not remote(models.directory):
        return registry_of(app.directory, app.config)
    cache = app.directory / models.cache
    keeper = MirrorKeeper(models.directory, cache, named(app.config), models.keep)
    keeper.start()
    app.closing.append(keeper.stop)
    return Registry(cache)


async def open_rpc(app: App, host: str, *, shared: bool) -> RpcServer | None:
    """The gRPC door, where there is to be one: open, and not serving until `app` is ready. Raises ServiceError when its
    port is taken. What it needs is imported here: most services have none."""
    settings, service = app.config.grpc, app.config.service
    if settings.port is None:
        return None
    keep_grpc_from_forks()
    from service.rpc.server import RpcServer

    api, more = app.api, {}
    if app.config.oip.enabled:
        from service.rpc import inference

        more[inference.SERVICE] = partial(
            inference.add_to, models=lambda: app.inference, ready=app.why_not_ready, observer=app.metrics
        )
    opened = RpcServer(
        api.answers.answering, lambda: api.intake.events, app.metrics, app.why_not_ready, settings,
        max_message_bytes=service.max_body_bytes, drain_s=service.drain_s, more=more,
    )  # fmt: skip
    port = await opened.start(host, settings.port, shared=shared)
    app.notices.append(f"gRPC at {host}:{port}")
    return opened


async def open_records(app: App, project: str) -> Callable[[Answered], None]:
    """What is told of each answer: the serving log, and the tallies of freshness as served."""
    specs = await view_specs(app)
    tallies = Tallies({one.view: one.slo_s for one in specs})
    if notice := await asyncio.to_thread(restore, tallies, app.directory / LOG, time.time()):
        app.notices.append(notice)
    log = app.log if app.config.log.enabled else None
    older = None if log is None else ServedLog(log.directory, log.keep_days, log.flush)
    freshness = Freshness(Sampler(app.pipeline(), project, specs), tallies, partial(view_specs, app), log=older)
    app.metrics.project, app.metrics.feature_ages = project, freshness.ages
    app.api.insight.freshness = freshness
    freshness.start()
    app.closing += [freshness.stop, app.skew.start()]
    if log is not None:
        app.metrics.log = log
        log.start()
        app.closing.append(lambda: asyncio.to_thread(log.stop))

    def record(answered: Answered) -> None:
        tallies.add(answered.at, answered.request.placement, answered.version, answered.views)
        app.skew.add(answered)
        if log is not None:
            log.put(answered)

    return record


async def view_specs(app: App) -> list[ViewSpec]:
    """Every feature view, as the Feast registry has it now."""
    assert app.feast is not None
    return (await asyncio.to_thread(app.feast.facts)).specs


def open_intake(app: App, project: str) -> Applied:
    """Opens the door for events and, where this process is to, turns them into features."""
    config = app.config.events
    # A connection of its own, so that a thousand events do not stand before a shopper's features.
    intake = Intake(app.pipeline(), project, remember_s=config.remember_hours * 3600, max_backlog=config.max_backlog)
    app.api.intake.events = EventDoor(
        intake, list(config.weights), max_late_s=config.max_late_days * 86400, max_ahead_s=config.max_ahead_s
    )
    if config.consume:
        consumer = Consumer(app.pipeline(), project)
        app.metrics.consumer = consumer
        consumer.start()
        app.closing.append(consumer.stop)
    applied = Applied(app.pipeline(), project)
    app.closing.append(applied.close)
    return applied


async def open_feast_api(app: App, feast: Feast) -> None:
    """Opens the door for those who speak with Feast's feature server. Raises FeaturesError."""
    offer = (await asyncio.to_thread(feast.facts)).offer
    # Connections of its own, so that ten thousand entities do not stand before a shopper's features.
    reader, pusher = LookupReader(app.pipeline()), Pusher(app.pipeline())
    desk = app.api.feast.desk = FeastDesk(feast, reader, pusher, app.config.feast_api, offer)
    desk.start()
    app.closing.append(desk.stop)


def open_catalogue(
    app: App, project: str, engine: InlineEngine | LocalEngine, stream: ItemStream, versions: Versions
) -> tuple[ItemDoor, Catalogue, Catalogue]:
    """Opens the door for item changes, and has those of all workers applied between two batches."""
    publisher = Catalogue(app.pipeline(), project)
    schemas = [bundle.manifest.item for bundle in versions.all()]
    door = app.api.intake.items = ItemDoor(publisher, engine.desk.knows, schemas)
    follower = Catalogue(app.pipeline(), project)
    follower.start(lambda changes: stream([(one.item_id, one.facts) for one in changes]))
    app.closing.append(follower.stop)
    return door, publisher, follower


def open_inference(app: App, engine: InlineEngine | LocalEngine, versions: Versions) -> Models | None:
    """The models themselves for who may ask them, over HTTP too; None where nobody may."""
    settings = app.config.oip
    if not settings.enabled or app.api.oip is None:
        return None
    models = Models(versions, engine, most=settings.max_batch, timeout_s=settings.timeout_ms / 1e3)
    app.api.oip.models = models
    return models
