"""One process of the service, from the open port to the last answer."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

from service.app import App
from service.errors import ServiceError
from service.skew_counts import CountedFolder
from service.workers_metrics import MetricsFolder


async def serve(
    app: App, host: str, port: int, ready: Callable[[App, int], object], workers: MetricsFolder | None = None
) -> None:
    """Runs the service until SIGINT or SIGTERM. `ready` is called (and awaited, if it asks for it) once it answers.

    `workers`: where those that listen on the same port leave their figures.
    """
    sys.setswitchinterval(0.0005)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(name, stop.set)
    try:
        bound = await app.listen(host, port, shared=workers is not None)
    except OSError as error:
        raise ServiceError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    if workers is not None:
        app.metrics.others = workers.others
        app.skew.folder = CountedFolder(workers.folder)
        workers.start(app.metrics.snapshot)
    try:
        loading = asyncio.create_task(app.load())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            await loading
            outcome = ready(app, bound)
            if asyncio.iscoroutine(outcome):
                await outcome
        await stopping
    finally:
        await app.stop()
        if workers is not None:
            await workers.stop()
            workers.write(app.metrics.snapshot())
