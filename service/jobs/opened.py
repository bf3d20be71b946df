"""Jobs and webhooks of one process of the service, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.config import webhook_key
from service.deployment import Deployment
from service.jobs.desk import Desk
from service.jobs.files import JobFiles
from service.jobs.pace import Pace
from service.jobs.prepare import Prepare
from service.jobs.runner import Runner
from service.jobs.work import Work
from service.recommend import Recommender
from service.webhooks.desk import Desk as WebhookDesk
from service.webhooks.outbox import Outbox
from service.webhooks.sender import Sender

if TYPE_CHECKING:
    from service.app import App

JOBS, WEBHOOKS = "jobs", "jobs/webhooks"


def open_jobs(app: App, recommender: Recommender) -> None:
    """Opens the door for jobs, and does them where no other process of the deployment does. Raises ConfigError."""
    config, hosts = app.config.jobs, frozenset(app.config.webhooks.allow_hosts)
    key = webhook_key(app.directory, app.config.webhooks)
    files, outbox = JobFiles(app.directory / JOBS), Outbox(app.directory / WEBHOOKS)
    pace = Pace(recommender.limiter, recommender.engine.wait_s, config.share)
    users = Deployment(app.directory, app.config).data / "users.parquet"
    prepare = Prepare(
        files, recommender.placements, pace, users, config.allow, sorted(hosts),
        int(config.max_mb * 1e6), app.config.service.max_body_bytes,
    )  # fmt: skip
    sender = Sender(outbox, key, hosts, app.config.webhooks.retry_hours * 3600, app.metrics.webhooks.values)
    work = Work(files, recommender, pace, app.metrics.job_rows.values)
    runner = Runner(files, prepare, work, outbox, sender, config.keep_days)
    app.api.jobs.jobs = Desk(
        files, prepare, max_jobs=config.max_jobs, callbacks=key is not None, hosts=hosts, told=runner.wake.set
    )
    app.api.jobs.webhooks = WebhookDesk(outbox)
    runner.start()
    app.jobs = runner
