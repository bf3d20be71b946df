"""One change of the registry in a process of its own: `python -m service.registry_change JSON` prints what came of it.

A promotion loads the whole version to check it, for which a process that answers shoppers has neither the time nor, for
as long as it lives, the memory.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from features.child import child, last_line
from features.errors import FeaturesError
from ranking.errors import BundleError, NoSuchVersion, RankingError, RegistryBusy, RegistryError, RegistryUnavailable
from ranking.registry import Plan
from service.config import read_config
from service.errors import ConfigError, DeadlineExceeded, ServiceError
from service.models_wire import Changed

MOST_S = 120.0
"""A check that takes longer is given up."""


class Wanted(Struct, frozen=True):
    """What is to be done. `version` is empty where it is a rollback."""

    directory: str
    action: Literal["promote", "rollback"]
    name: str
    version: str
    alias: str
    why: str
    by: str
    plan: Plan | None = None


class Said(Struct, frozen=True):
    """What the process prints: what was changed, or why nothing was, and which kind of error that is."""

    changed: Changed | None = None
    error: str = ""
    kind: str = ""


KINDS: dict[str, type[Exception]] = {
    one.__name__: one for one in (NoSuchVersion, RegistryBusy, RegistryUnavailable, RegistryError)
}


async def apart(wanted: Wanted) -> Changed:
    """Makes the change. Raises RegistryError, BundleError for a version that fails its check, or DeadlineExceeded; the
    process ends where nobody waits for it any more."""
    asked = child("service.registry_change", msgspec.json.encode(wanted).decode())
    try:
        async with asyncio.timeout(MOST_S):
            out, complaints = await asyncio.to_thread(asked.communicate)
    except TimeoutError as error:
        raise DeadlineExceeded(f"the check took longer than {MOST_S:g} s") from error
    finally:
        asked.kill()
    try:
        said = msgspec.json.decode(out, type=Said)
    except msgspec.DecodeError as error:
        raise RegistryUnavailable(
            f"the version could not be checked: {last_line(complaints, asked.returncode)}"
        ) from error
    if said.changed is not None:
        return said.changed
    if said.kind == BundleError.__name__:
        raise BundleError(said.error, "")
    raise KINDS.get(said.kind, RegistryUnavailable)(said.error)


def make(wanted: Wanted) -> Changed:
    """Makes the change in this process. Raises RegistryError, BundleError, FeaturesError or ConfigError."""
    from service.registry import Changes  # the parent needs none of what this brings

    directory = Path(wanted.directory)
    changes = Changes(directory, read_config(directory), wanted.by)
    if wanted.plan is not None:
        before, after = changes.roll_out(wanted.name, wanted.version, wanted.plan, wanted.why)
    elif wanted.action == "promote":
        before, after = changes.promote(wanted.name, wanted.version, wanted.alias, wanted.why)
    else:
        before, after = changes.rollback(wanted.name, wanted.alias, wanted.why)
    now, was = after.aliases.get(wanted.alias), before.aliases.get(wanted.alias)
    share = None if after.rollout is None else after.rollout.share
    return Changed(wanted.name, wanted.alias, now, was, after.generation, after is not before, share)


def main(argument: str) -> None:
    out: Any = sys.stdout.buffer
    os.nice(5)  # beside a service that answers
    try:
        said = Said(make(msgspec.json.decode(argument, type=Wanted)))
    except (RankingError, FeaturesError, ServiceError, ConfigError) as error:
        said = Said(error=str(error), kind=type(error).__name__)
    out.write(msgspec.json.encode(said))


if __name__ == "__main__":
    main(sys.argv[1])
