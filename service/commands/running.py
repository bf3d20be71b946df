"""The commands that serve."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import uvloop
from msgspec import structs

from features.consumer import Consumer
from features.pipeline import Pipeline
from features.store import connection, project_of
from service import app, process
from service.console import console
from service.deployment import Deployment
from service.errors import ServiceError
from service.lean import keep_pandas_out
from service.prepared import prepare
from service.supervisor import Supervisor, reserve
from service.workers_metrics import MetricsFolder


def serve(directory: Path, host: str | None, port: int | None, workers: int | None = None) -> None:
    """Serves until a signal, in this process or in several workers."""
    keep_pandas_out()
    here = Deployment.at(directory)
    workers = here.config.service.workers if workers is None else workers
    with here.online_store():
        if workers > 1:
            supervise(here, host, port, workers)
        else:
            run(here, host, port, lambda running, bound: announce(here, host, running, bound))


def run(here: Deployment, host: str | None, port: int | None, ready: Any) -> None:
    host = host or here.config.service.host
    port = here.config.service.port if port is None else port
    uvloop.run(process.serve(app.App(here.directory, here.config), host, port, ready))


def supervise(here: Deployment, host: str | None, port: int | None, workers: int) -> None:
    """Prepares once, then answers in so many workers. Raises ServiceError when the port is taken."""
    host = host or here.config.service.host
    port = here.config.service.port if port is None else port
    # As many workers as cores leave none for a thread of the engine's own.
    engine = structs.replace(here.config.engine, thread=here.config.engine.thread and workers < (os.cpu_count() or 1))
    config = structs.replace(here.config, engine=engine)
    try:
        held = reserve(host, port)
    except OSError as error:
        raise ServiceError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    bound = held.getsockname()[1]
    prepared = prepare(here.directory, config, app.SOURCES)
    if not prepared.on_cpu:
        raise ServiceError("workers are forked, and a GPU cannot be: serve with --workers 1, one process a GPU")

    with tempfile.TemporaryDirectory(prefix="endcap-") as folder:
        figures = MetricsFolder(Path(folder))

        def work(number: int) -> int:
            def say(running: app.App, port: int) -> None:
                if number == 0:
                    announce(here, host, running, port)

            uvloop.run(process.serve(app.App(here.directory, config, prepared), host, bound, say, figures))
            return 0

        Supervisor(workers, work, drain_s=here.config.service.drain_s, died=figures.end).run()
    held.close()


def ingest(directory: Path) -> None:
    """Turns events into features until a signal; several such processes share the work."""
    here = Deployment.at(directory)
    with here.online_store():
        project = project_of(here.repo)
        consumer = Consumer(Pipeline(**connection(here.repo)), project)
        console.print(f"Turning the events of {project} into features. Ctrl-C ends it.", markup=False)
        uvloop.run(until_signal(consumer))
        console.print(f"{consumer.consumed:,} events are in the features, {consumer.unusable:,} could not be used")


async def until_signal(consumer: Consumer) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    consumer.start()
    await stop.wait()
    await consumer.stop()


def announce(here: Deployment, host: str | None, running: app.App, port: int) -> str:
    for notice in running.notices:
        console.print(notice, soft_wrap=True, markup=False)
    url = f"http://{host or here.config.service.host}:{port}"
    console.print(f"\n[bold]Endcap answers at {url}[/bold]   try it: {url}/docs   Ctrl-C ends it", soft_wrap=True)
    return url
