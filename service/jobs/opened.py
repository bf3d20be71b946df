"""Jobs and webhooks of one process of the service, put together."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from service.config import FILE, WebhooksConfig, webhook_key
from service.deployment import Deployment
from service.errors import ConfigError
from service.jobs.desk import Desk
from service.jobs.files import JobFiles
from service.jobs.pace import Pace
from service.jobs.prepare import Prepare
from service.jobs.runner import Runner
from service.jobs.work import Work
from service.recommend import Recommender
from service.webhooks.desk import Desk as WebhookDesk
from service.webhooks.outbound import trusting
from service.webhooks.outbox import Outbox
from service.webhooks.sender import Sender

if TYPE_CHECKING:
    from service.app import App

JOBS, WEBHOOKS = "jobs", "jobs/webhooks"


def open_jobs(app: App, recommender: Recommender) -> None:
    """Opens the door for jobs, and does them where no other process of the deployment does. Raises ConfigError."""
    config, hosts = app.config.jobs, frozenset(app.config.webhooks.allow_hosts)
    key, trust = webhook_key(app.directory, app.config.webhooks), webhook_trust(app.directory, app.config.webhooks)
    files, outbox = JobFiles(app.directory / JOBS), Outbox(app.directory / WEBHOOKS)
    pace = Pace(recommender.limiter, recommender.engine.wait_s, config.share)
    users = Deployment(app.directory, app.config).data / "users.parquet"
    prepare = Prepare(
        files, recommender.placements, pace, users, config.allow, sorted(hosts),
        int(config.max_mb * 1e6), app.config.service.max_body_bytes, trust,
    )  # fmt: skip
    retry_s = app.config.webhooks.retry_hours * 3600
    sender = Sender(outbox, key, hosts, retry_s, app.metrics.webhooks.values, trust=trust)
    work = Work(files, recommender, pace, app.metrics.job_rows.values)
    runner = Runner(files, prepare, work, outbox, sender, config.keep_days)
    app.api.jobs.jobs = Desk(
        files, prepare, max_jobs=config.max_jobs, callbacks=key is not None, hosts=hosts, told=runner.wake.set
    )
    app.api.jobs.webhooks = WebhookDesk(outbox)
    runner.start()
    app.jobs = runner


def webhook_trust(directory: Path, webhooks: WebhooksConfig) -> ssl.SSLContext | None:
    """Whose certificates are taken, where the settings name any. Raises ConfigError."""
    if webhooks.ca_file is None:
        return None
    file = directory / webhooks.ca_file
    try:
        return trusting(file)
    except ssl.SSLError as error:
        raise ConfigError(f"{directory / FILE}: webhooks.ca_file: {file}: holds no certificate in PEM") from error
    except OSError as error:
        raise ConfigError(f"{directory / FILE}: webhooks.ca_file: {file}: {error.strerror or error}") from error
