"""`endcap ingest`: events become features in a process of its own."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import uvloop

from features.consumer import Consumer
from features.pipeline import Pipeline
from features.store import connection, project_of
from service.console import console
from service.deployment import Deployment


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
