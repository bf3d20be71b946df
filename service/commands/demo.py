"""`endcap demo`: a shop, its features, a model, the running service, and a first answer."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import orjson

from features.errors import InputError
from features.store import connection
from service.commands import data, models
from service.commands.running import announce, run
from service.config import ServiceConfig
from service.console import console
from service.deployment import Deployment
from service.errors import ConfigError, ServiceError
from service.valkey import taken


def demo(directory: Path, host: str | None, port: int | None, files: list[Path] | None, form: str | None) -> None:
    """A shop, its features, a model, the running service; what an earlier demo made is used again."""
    if form is not None and not files:
        raise ConfigError(
            "--format says how to read --data, and there is none (make demo DATA=…, endcap demo --data …)"
        )
    form = form or "generic"
    present = Deployment.exists(directory)
    settings = Deployment.at(directory).config.service if present else ServiceConfig()
    wanted = settings.port if port is None else port
    if wanted and taken(host or settings.host, wanted):
        raise ServiceError(f"port {wanted} is in use; choose another (make demo PORT=…, endcap demo --port …)")
    if not present:
        for file in files or ():
            if not file.is_file():
                raise InputError("there is no such file", file=file)
        data.init(directory, "shop", None)
    here = Deployment.at(directory)
    with here.online_store():
        bring_in(here, files, form)
        if here.is_materialized() and not empty(here):
            console.print(f"Reusing the features in {here.features} and the online store")
        else:
            data.materialize(directory)
        if knows_shop(here):
            console.print(f"Reusing the model in {here.registry.home(models.MODEL)}")
        else:
            models.train(directory, evaluate=True)
        run(here, host, port, lambda running, bound: first_answer(here, announce(here, host, running.notices, bound)))


def bring_in(here: Deployment, files: list[Path] | None, form: str) -> None:
    """The shop: what is there already, else imported or made up. Raises ConfigError when another shop is there."""
    made_from = here.shop()
    if "id" not in made_from:
        if files:
            data.import_shop(here.directory, form, files, shift_to_now=form == "online-retail")
        else:
            data.generate(here.directory, seed=7, items=10_000, users=5_000, events=300_000, days=60)
        return
    if files and {name: made_from[name] for name in made_from if name not in ("at", "id", "line")} != data.source(
        form, files
    ):
        raise ConfigError(f"{here.directory} holds another shop ({made_from['format']}); choose another directory")
    console.print(f"Reusing the shop in {here.data}")


def knows_shop(here: Deployment) -> bool:
    """Whether the newest model learned from the shop that is there now."""
    present = here.registry.versions(models.MODEL)
    return bool(present) and here.registry.manifest(models.MODEL, present[-1]).shop == here.shop_id()


def empty(here: Deployment) -> bool:
    """Whether the online store holds nothing. Raises ServiceError when it does not answer."""
    import redis

    options = connection(here.repo)
    try:
        with redis.Redis(**options, protocol=2) as client:
            return bool(client.dbsize() == 0)
    except (redis.RedisError, OSError) as error:
        raise ServiceError("Redis at {host}:{port}: ".format(**options) + str(error)) from error


async def first_answer(here: Deployment, url: str) -> None:
    """Asks the running service as a storefront would, and shows what came."""
    user = models.busy_user(here)
    body = {"user_id": user, "placement": "home", "count": 8}
    shown = json.dumps(body)
    console.print(
        f"\n  curl -s {url}/v1/recommendations -H 'Content-Type: application/json' -d '{shown}'\n", soft_wrap=True
    )
    try:
        answer = await asyncio.to_thread(post, f"{url}/v1/recommendations", {**body, "explain": True})
    except urllib.error.URLError as error:  # a deployment's own placements may not have this one
        reason = error.read().decode() if isinstance(error, urllib.error.HTTPError) else error
        console.print(f"It says: {reason}", soft_wrap=True, markup=False)
        return
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
