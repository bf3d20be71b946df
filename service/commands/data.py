"""The commands that bring a shop in and turn its events into features."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc

from features.catalogue import Catalogue
from features.columns import LATEST
from features.errors import InputError
from features.files import replace_file, said
from features.generate import check_sizes, generate_shop
from features.history import write_history
from features.importers.generic import import_generic
from features.importers.online_retail import import_online_retail
from features.pipeline import Pipeline
from features.progress import Progress, Report
from features.seed import Seed
from features.shop import Shop, read_shop, write_shop
from features.store import apply, check_repo, connection, init_repo, make_room, project_of
from features.store import materialize as feast_materialize
from service.config import FILE
from service.console import console, step
from service.deployment import MATERIALIZED, Deployment
from service.errors import ConfigError
from service.valkey import free_port

REPO = "feature_repo"


def init(directory: Path, project: str, address: str | None) -> None:
    """Writes endcap.toml and the Feast repo. What exists stays, and is an error; a refusal leaves nothing behind."""
    if Deployment.exists(directory):
        raise ConfigError(f"{directory / FILE}: is there already")
    check_repo(directory / REPO, project, address)
    with step(f"Making {directory}") as running:
        template = (Path(__file__).parents[1] / FILE).read_text(encoding="utf-8")
        if address:
            template = template.replace("embedded_valkey = true ", "embedded_valkey = false")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            init_repo(directory / REPO, project, address or f"127.0.0.1:{free_port()}")
        except OSError as error:
            raise ConfigError(f"{error.filename or directory}: {said(error)}") from error
        replace_file(directory / FILE, template.encode())
        running.report.wrote = {FILE: 1, REPO: 1}


def generate(directory: Path, *, seed: int, items: int, users: int, events: int, days: int) -> None:
    """Makes a shop up and writes it."""
    here = Deployment.at(directory)
    check_sizes(seed=seed, items=items, users=users, events=events, days=days)
    with step("Making up a shop") as running:
        shop, report = generate_shop(seed=seed, items=items, users=users, events=events, days=days, progress=running)
        keep(here, shop, report, {"format": "generated", "seed": seed, "items": items, "users": users})
        running.report = report


def import_shop(directory: Path, form: str, files: list[Path], shift_to_now: bool) -> None:
    """Imports a shop and writes it."""
    here = Deployment.at(directory)
    with step(f"Importing {', '.join(str(file) for file in files)}") as running:
        now = datetime.now(UTC)
        # Features up to a time that is not yet cost memory and time for each day until then.
        until = datetime.fromtimestamp(min(now.timestamp() + here.config.events.max_ahead_s, LATEST.timestamp()), UTC)
        if form == "online-retail":
            shift_to = now if shift_to_now else None
            shop, report = import_online_retail(files, running, shift_to=shift_to, until=until)
        elif shift_to_now:
            raise InputError("--shift-to-now is for --format online-retail only")
        else:
            shop, report = import_generic(files, running, until)
        report.notes += told_of_kinds(shop, here.config.events.weights)
        keep(here, shop, report, source(form, files))
        running.report = report
    newest = shop.events["timestamp"].to_pylist()[-1]
    if (now - newest).days > 30:
        console.print(
            f"  the newest event is {(now - newest).days} days old: features will be outside their max age and answers "
            "will go on with defaults"
        )


def told_of_kinds(shop: Shop, weights: Mapping[str, float]) -> list[str]:
    """A note on the kinds of event that no model learns from, where there are any: a typing error, or no interest."""
    counts = pc.value_counts(shop.events["event"]).to_pylist()
    others = {one["values"]: one["counts"] for one in counts if one["values"] not in weights}
    if not others:
        return []
    most = sorted(others, key=lambda kind: -others[kind])
    shown = ", ".join(f"{kind[:60]!r} {others[kind]:,}" for kind in most[:10])
    more = f" and {len(most) - 10:,} kinds more" if len(most) > 10 else ""
    return [f"events that train nothing: {shown}{more}; the kinds that do: {', '.join(weights)} (events.weights)"]


def source(form: str, files: list[Path]) -> dict[str, object]:
    """What a shop was imported from, as `source.json` keeps it."""
    return {"format": form, "files": [str(file.resolve()) for file in files]}


def keep(here: Deployment, shop: Shop, report: Report, made_from: dict[str, object]) -> None:
    """Writes the shop; features made of an earlier one go, because they are not its own, once the new one is there."""
    write_shop(shop, here.data)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(here.features)
    here.name_shop(made_from)


def materialize(directory: Path) -> None:
    """Events -> offline features -> Feast registry -> online store."""
    here = Deployment.at(directory)
    shop = read_shop(here.data)
    (here.features / MATERIALIZED).unlink(missing_ok=True)
    with here.online_store():
        with step("Computing features") as running:
            running.report = write_history(shop.events, shop.items, shop.users, here.features, running)
        with step("Registering with Feast"):
            apply(here.repo)
        with step("Materializing into the online store") as running:
            # An embedded Valkey holds nobody else's entities: those of another shop are stale.
            make_room(here.repo, here.line(), entities=here.config.features.embedded_valkey)
            running.report = feast_materialize(here.repo, None, running)
        with step("Handing the histories to the consumer of live events") as running:
            running.report = asyncio.run(hand_over(here, shop, running))
    here.mark_materialized()


async def hand_over(here: Deployment, shop: Shop, progress: Progress) -> Report:
    """Writes what live events are added to, and the batch's word on items that changed before it."""
    pipeline, project = Pipeline(**connection(here.repo)), project_of(here.repo)
    try:
        report = await Seed(pipeline, project, shop.events, shop.items, shop.users).run(progress)
        imported_at = float(here.shop().get("at", 0.0))
        report.wrote["item changes outdated"] = await Catalogue(pipeline, project).reconcile(shop.items, imported_at)
        return report
    finally:
        await pipeline.close()
