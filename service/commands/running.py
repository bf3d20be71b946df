"""The commands that serve."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import orjson
import uvloop

from features.store import connection
from ranking.bundle import versions
from service import app
from service.commands import data, models
from service.console import console
from service.deployment import Deployment
from service.errors import ConfigError, ServiceError
from service.valkey import taken


def serve(directory: Path, host: str | None, port: int | None) -> None:
    """Serves until a signal."""
    here = Deployment.at(directory)
    with here.online_store():
        run(here, host, port, lambda running, bound: announce(here, host, bound))


def run(here: Deployment, host: str | None, port: int | None, ready: Any) -> None:
    host = host or here.config.service.host
    port = here.config.service.port if port is None else port
    try:
        uvloop.run(app.serve(here.directory, here.config, host, port, ready))
    except OSError as error:
        raise ServiceError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def announce(here: Deployment, host: str | None, port: int) -> str:
    url = f"http://{host or here.config.service.host}:{port}"
    console.print(f"\n[bold]Endcap answers at {url}[/bold]   try it: {url}/docs   Ctrl-C ends it", soft_wrap=True)
    return url


def demo(directory: Path, host: str | None, port: int | None, files: list[Path] | None, form: str) -> None:
    """A shop, its features, a model, the running service; what an earlier demo made is used again."""
    if not Deployment.exists(directory):
        data.init(directory, "shop", None)
    here = Deployment.at(directory)
    wanted = here.config.service.port if port is None else port
    if wanted and taken(host or here.config.service.host, wanted):
        raise ServiceError(f"port {wanted} is in use; choose another (make demo PORT=…, endcap demo --port …)")
    with here.online_store():
        bring_in(here, files, form)
        if not here.features.is_dir() or empty(here):
            data.materialize(directory)
        else:
            console.print(f"Reusing the features in {here.features} and the online store")
        if versions(here.models, "default"):
            console.print(f"Reusing the model in {here.models}")
        else:
            models.train(directory, evaluate=True)
        run(here, host, port, lambda running, bound: first_answer(here, announce(here, host, bound)))


def bring_in(here: Deployment, files: list[Path] | None, form: str) -> None:
    """The shop: what is there already, else imported or made up. Raises ConfigError when another shop is there."""
    record = here.data / data.SOURCE
    if not record.exists():
        if files:
            data.import_shop(here.directory, form, files, shift_to_now=form == "online-retail")
        else:
            data.generate(here.directory, seed=7, items=10_000, users=5_000, events=300_000, days=60)
        return
    made_from = json.loads(record.read_text(encoding="utf-8"))
    if files and made_from != data.source(form, files):
        raise ConfigError(f"{here.directory} holds another shop ({made_from['format']}); choose another directory")
    console.print(f"Reusing the shop in {here.data}")


def empty(here: Deployment) -> bool:
    """Whether the online store holds nothing."""
    import redis

    with redis.Redis(**connection(here.repo), protocol=2) as client:
        return bool(client.dbsize() == 0)


async def first_answer(here: Deployment, url: str) -> None:
    """Asks the running service as a storefront would, and shows what came."""
    user = models.busy_user(here)
    body = {"user_id": user, "placement": "home", "count": 8}
    shown = json.dumps(body)
    console.print(
        f"\n  curl -s {url}/v1/recommendations -H 'Content-Type: application/json' -d '{shown}'\n", soft_wrap=True
    )
    answer = await asyncio.to_thread(post, f"{url}/v1/recommendations", {**body, "explain": True})
    recent = models.titles(here, (answer["inputs"].get("user_recent:item_ids") or [])[-5:])
    console.print(f"Shopper {user} last looked at: {'; '.join(reversed(recent))}", soft_wrap=True)
    console.print(f"and should see now ({answer['took_ms']:.1f} ms):")
    for item in answer["items"]:
        about = item["explain"]
        price = "" if about["price"] is None else f"{about['price']:.2f}"
        console.print(
            f"  {item['score']:7.3f}  {about['title']}  ({about['category']}, {price}, {item['source']})",
            soft_wrap=True,
        )


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, orjson.dumps(body), {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - our own address
        answer: dict[str, Any] = orjson.loads(response.read())
    return answer
