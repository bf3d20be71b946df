"""`endcap models`: which versions there are, which one stands for what, and changes of that."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import msgspec
from msgspec import Meta
from rich.table import Table

from ranking.aliases import PRODUCTION, Alias
from ranking.errors import BundleError, NoSuchVersion, RegistryError
from ranking.registry import Plan, State
from service.console import console, step
from service.deployment import Deployment
from service.models_wire import ChangeReport, ModelReport, VersionReport
from service.registry import Changes
from service.registry_report import report
from service.rollout_text import told as told_plan

LAST = 8
"""Changes that the table shows."""


def list_models(directory: Path, name: str | None, *, as_json: bool) -> None:
    """Prints a table a model, or everything as JSON. Raises RegistryError."""
    here = Deployment.at(directory)
    names = here.registry.names()
    if name is not None and name not in names:
        raise NoSuchVersion(f"no model {name}; there are {', '.join(names) or 'none'}")
    last = 10**9 if as_json else LAST
    found = [report(here.registry, one, last) for one in ([name] if name is not None else names)]
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
        return
    for one in found:
        show(one)
    if not found:
        console.print("no model yet; `endcap train` or `endcap bundle pack` makes one")


def show(model: ModelReport) -> None:
    """A model's versions and last changes; what cannot be said in 80 columns is left to --json."""
    table = Table(title=f"{model.name} ({model.where})", title_justify="left")
    for title in ("version", "made"):
        table.add_column(title, no_wrap=True)
    for title in ("items", "MB", "recall@10"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("stands for")
    for one in model.versions:
        made = "damaged" if one.created_at is None else f"{one.created_at.astimezone():%Y-%m-%d %H:%M}"
        items = "" if one.items is None else f"{one.items:,}"
        table.add_row(one.version, made, items, f"{one.bytes / 1e6:,.1f}", recall(one), stands(model, one))
    console.print(table)
    for change in model.history:
        console.print(f"  {told(change)}", markup=False, soft_wrap=True)


def recall(one: VersionReport) -> str:
    found = one.metrics.get("model", {}).get("recall@10")
    return "" if found is None else f"{found:.4f}"


def stands(model: ModelReport, one: VersionReport) -> str:
    said = [*one.aliases, *(["retired"] if one.retired else [])]
    if model.rollout is not None and model.rollout["version"] == one.version:
        said.append(f"rollout, {model.rollout['share'] * 100:g} %")
    return ", ".join(said)


def told(change: ChangeReport) -> str:
    """One line of the history."""
    on = f"{change.alias} {change.before or 'unset'} -> {change.version}" if change.alias else change.version
    by, why = f" by {change.by}" if change.by else "", f": {change.why}" if change.why else ""
    return f"{change.at.astimezone():%Y-%m-%d %H:%M:%S} {change.action} {on}{by}{why}"


def promote(directory: Path, name: str, version: str, alias: str, *, by: str | None, why: str) -> None:
    check_alias(alias)
    changes = changes_of(directory, by)
    with refusing(), step(f"Checking {name}@{version}"):
        before, after = changes.promote(name, version, alias, why)
    if after is before:
        console.print(f"  {alias} is version {version} already; nothing was changed")
    else:
        say_changed(name, alias, before, after)


def roll_out(directory: Path, name: str, version: str, alias: str, plan: Plan, *, by: str | None, why: str) -> None:
    if alias != PRODUCTION:
        raise RegistryError(f"--steps: goes with the alias {PRODUCTION} only, and not with {alias}")
    changes = changes_of(directory, by)
    with refusing(), step(f"Checking {name}@{version}"):
        before, _ = changes.roll_out(name, version, plan, why)
    console.print(
        f"  {name}: version {version} gets {told_plan(plan)}. The service that runs takes the steps, or goes back to "
        f"{before.aliases[PRODUCTION]}; `endcap models list {name}` shows how far it is",
        soft_wrap=True, markup=False,
    )  # fmt: skip


def rollback(directory: Path, name: str, alias: str, *, by: str | None, why: str) -> None:
    check_alias(alias)
    changes = changes_of(directory, by)
    with refusing(), step(f"Checking what {name}@{alias} was before"):
        before, after = changes.rollback(name, alias, why)
    if before.rollout is not None and after.rollout is None:
        console.print(f"  the rollout of {before.rollout.version} has ended")
    say_changed(name, alias, before, after)


def retire(directory: Path, name: str, version: str, *, delete: bool, by: str | None, why: str) -> None:
    changes_of(directory, by).retire(name, version, why, delete=delete)
    console.print(f"  {name}@{version} answers no more" + ("; its files are deleted" if delete else ""))


def restore(directory: Path, name: str, version: str, *, by: str | None, why: str) -> None:
    changes = changes_of(directory, by)
    with refusing(), step(f"Checking {name}@{version}"):
        changes.restore(name, version, why)
    console.print(f"  {name}@{version} may answer again")


def say_next(here: Deployment, name: str, version: str) -> None:
    """What to do with a new version, where an alias says which one answers. Without one the newest does."""
    now = here.registry.read(name).aliases.get(PRODUCTION)
    if now is not None and now != version:
        console.print(
            f"  {PRODUCTION} is still version {now}; `endcap models promote {name} {version}` makes it this one",
            soft_wrap=True, markup=False,
        )  # fmt: skip


def say_changed(name: str, alias: str, before: State, after: State) -> None:
    was, now = before.aliases.get(alias), after.aliases.get(alias)
    console.print(f"  {name}: {alias} is version {now} (was {was or 'unset'})", soft_wrap=True, markup=False)


def changes_of(directory: Path, by: str | None) -> Changes:
    here = Deployment.at(directory)
    return Changes(here.directory, here.config, by or user())


def user() -> str:
    """The user that runs this command."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        return str(os.getuid())


def check_alias(alias: str) -> None:
    """Raises RegistryError for what no alias is called."""
    pattern = next(one.pattern for one in get_args(Alias) if isinstance(one, Meta))
    if pattern is None or not re.search(pattern, alias):
        raise RegistryError(f"--alias {alias}: an alias matches {pattern}")


@contextmanager
def refusing() -> Iterator[None]:
    """A version that fails its check is bad input, not a failure of ours."""
    try:
        yield
    except BundleError as error:
        raise RegistryError(f"{error}; nothing was changed") from error
