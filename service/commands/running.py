"""`endcap serve`: in this process, or in several workers."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import structs

from service.config import Config, admin_key, webhook_key
from service.console import console
from service.deployment import Deployment
from service.errors import ServiceError
from service.reserved import reserve
from service.zygote import run_apart

GRACE_S = 15.0
"""What all workers together get to end in beyond `drain_s`."""


def serve(
    directory: Path, host: str | None, port: int | None, workers: int | None, told: Callable[[Exception], int]
) -> int:
    """Serves until a signal, in this process or in several workers. Returns the exit code.

    `told` prints an error that a user can cause, and returns its exit code.
    """
    here = Deployment.at(directory)
    admin_key(here.directory, here.config.admin)  # a key that cannot be used is said before anything starts
    webhook_key(here.directory, here.config.webhooks)
    workers = here.config.service.workers if workers is None else workers
    with here.online_store():
        if workers > 1:
            return supervise(here, host, port, workers, told)
        run(here, host, port, lambda running, bound: announce(here, host, running.notices, bound))
        return 0


def run(here: Deployment, host: str | None, port: int | None, ready: Any) -> None:
    """In this process. What it needs is imported here: a process that only waits for workers needs none of it."""
    from service.lean import allocate_plainly, keep_pandas_out

    allocate_plainly()
    import uvloop

    from service import app, process

    keep_pandas_out()
    host = host or here.config.service.host
    port = here.config.service.port if port is None else port
    config = inline_where_crowded(with_workers(here.config, 1))
    uvloop.run(process.serve(app.App(here.directory, config), host, port, ready))


def with_workers(config: Config, workers: int) -> Config:
    """The settings as they are true of this run, whatever the file says."""
    return structs.replace(config, service=structs.replace(config.service, workers=workers))


def supervise(
    here: Deployment, host: str | None, port: int | None, workers: int, told: Callable[[Exception], int]
) -> int:
    """Loads once, then answers in so many workers. Returns the exit code. Raises ServiceError for a port in use."""
    host = host or here.config.service.host
    port = here.config.service.port if port is None else port
    config = inline_where_crowded(with_workers(here.config, workers))
    held = held_for_workers(host, port)
    bound = held.getsockname()[1]
    with held, held_for_grpc(host, config) as config, tempfile.TemporaryDirectory(prefix="endcap-") as folder:

        def load() -> Callable[[], None]:
            from service.lean import allocate_plainly

            allocate_plainly()
            from service.commands.workers import supervised

            return supervised(here, config, host, bound, workers, Path(folder))

        return run_apart(load, told, config.service.drain_s + GRACE_S)


def held_for_workers(host: str, port: int) -> socket.socket:
    """Raises ServiceError for a port in use."""
    try:
        return reserve(host, port)
    except OSError as error:
        raise ServiceError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


@contextmanager
def held_for_grpc(host: str, config: Config) -> Iterator[Config]:
    """Holds gRPC's port as well, where there is one; the settings then name the one that all workers listen on. Raises
    ServiceError for a port in use."""
    if config.grpc.port is None:
        yield config
        return
    with held_for_workers(host, config.grpc.port) as held:
        yield structs.replace(config, grpc=structs.replace(config.grpc, port=held.getsockname()[1]))


def inline_where_crowded(config: Config) -> Config:
    """As many workers as this process may use cores leave none for a thread of the engine's own."""
    thread = config.engine.thread and config.service.workers < len(os.sched_getaffinity(0))
    return structs.replace(config, engine=structs.replace(config.engine, thread=thread))


def announce(here: Deployment, host: str | None, notices: Sequence[str], port: int) -> str:
    for notice in notices:
        console.print(notice, soft_wrap=True, markup=False)
    url = f"http://{host or here.config.service.host}:{port}"
    console.print(f"\n[bold]Endcap answers at {url}[/bold]   try it: {url}/docs   Ctrl-C ends it", soft_wrap=True)
    return url
