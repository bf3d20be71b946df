"""What several workers share, and what each of them runs. Imported where it is loaded (`service.zygote`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import uvloop

from service import app, process
from service.commands.running import announce
from service.config import Config
from service.deployment import Deployment
from service.errors import ServiceError
from service.lean import keep_pandas_out
from service.prepared import prepare
from service.skew_counts import CountedFolder
from service.supervisor import Supervisor
from service.workers_metrics import MetricsFolder

LOADING = ".loading"
"""The file that says which worker loads."""


def supervised(
    here: Deployment, config: Config, host: str, port: int, workers: int, folder: Path
) -> Callable[[], None]:
    """Loads everything, and returns what keeps so many workers running until a signal. Raises ServiceError on a GPU."""
    keep_pandas_out()
    prepared = prepare(here.directory, config, app.SOURCES)
    if not prepared.on_cpu:
        raise ServiceError("workers are forked, and a GPU cannot be: serve with --workers 1, one process a GPU")
    figures, counted = MetricsFolder(folder), CountedFolder(folder)

    def work(number: int) -> int:
        def say(running: app.App, bound: int) -> None:
            if number == 0:
                announce(here, host, running.notices, bound)

        uvloop.run(process.serve(app.App(here.directory, config, prepared, folder / LOADING), host, port, say, figures))
        return 0

    def died(pid: int) -> None:
        figures.end(pid)
        counted.end(pid)

    return Supervisor(workers, work, drain_s=config.service.drain_s, died=died).run
