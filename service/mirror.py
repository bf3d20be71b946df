"""What a service needs of an object store, brought to this machine by a process of its own before it loads.

`python -m service.mirror JSON`. The store's client brings threads, which a process that forks must not have, and tens
of megabytes, which every worker would. What it leaves in the cache is a registry in a directory: aliases.json of each
model and the versions that are to be loaded.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from features.child import child, last_line
from ranking.errors import BundleError, RankingError, RegistryError, RegistryUnavailable
from ranking.registry import Registry, open_registry
from ranking.storage import ALIASES, replace_file
from ranking.versions import needed, standing

EVERY_S = 0.5
"""How often the store is looked at by who follows it."""


class Wanted(Struct, frozen=True):
    """The URL, where on this machine, the models as placements name them, how many of each one's newest versions.
    `parent`: the process as long as whose life the store is followed; 0: it is brought once."""

    url: str
    cache: str
    models: list[str]
    keep: int
    parent: int = 0


class Said(Struct, frozen=True):
    """What the process prints: nothing, or why it failed and which kind of error that is."""

    error: str = ""
    kind: str = ""


def mirrored(url: str, cache: Path, models: Iterable[str], keep: int) -> Registry:
    """What is needed of the store, as it is now, as a registry on this machine. Raises BundleError or RegistryError."""
    wanted = Wanted(url, str(cache), list(models), keep)
    asked = child("service.mirror", msgspec.json.encode(wanted).decode())
    try:
        out, complaints = asked.communicate()
    finally:
        asked.kill()
    try:
        said = msgspec.json.decode(out, type=Said)
    except msgspec.DecodeError as error:
        raise RegistryUnavailable(f"{url}: {last_line(complaints, asked.returncode)}") from error
    if said.kind == BundleError.__name__:
        raise BundleError(said.error, "")
    if said.kind:
        raise (
            RegistryUnavailable(said.error) if said.kind == RegistryUnavailable.__name__ else RegistryError(said.error)
        )
    return Registry(cache)


def mirror(store: Registry, models: Iterable[str], keep: int) -> None:
    """Fetches what the models need, then lays their aliases beside it. Raises BundleError or RegistryError."""
    for model in dict.fromkeys(models):
        name = model.partition("@")[0]
        state, there = store.read(name), store.versions(name)
        for version in dict.fromkeys([*needed(state, there, keep), standing(store, model, state, there)]):
            store.fetch(name, version)
        home = store.models / name
        for version in Registry(store.models).versions(name):
            if version not in there:  # somebody took it out of the store
                shutil.rmtree(home / version, ignore_errors=True)
        replace_file(home / ALIASES, msgspec.json.encode(state))


def follow(wanted: Wanted, out: Any) -> None:
    """Brings what changes, and says each error once, as a line, until nobody listens any more."""
    cache, said = Path(wanted.cache), ""
    store = open_registry(wanted.url, cache, cache)
    names = {one.partition("@")[0] for one in wanted.models}
    stamps: dict[str, Any] = {}
    while os.getppid() == wanted.parent:
        try:
            now = {name: store.stamp(name) for name in names}
            if now != stamps:
                mirror(store, wanted.models, wanted.keep)
                stamps, said = now, ""
        except RankingError as error:
            if str(error) != said:
                said = str(error)
                out.write(said.encode() + b"\n")
                out.flush()
        time.sleep(EVERY_S)


def main(argument: str) -> None:
    out: Any = sys.stdout.buffer
    wanted = msgspec.json.decode(argument, type=Wanted)
    cache = Path(wanted.cache)
    if wanted.parent:
        follow(wanted, out)
        return
    try:
        mirror(open_registry(wanted.url, cache, cache), wanted.models, wanted.keep)
        said = Said()
    except RankingError as error:
        said = Said(str(error), type(error).__name__)
    out.write(msgspec.json.encode(said))


if __name__ == "__main__":
    main(sys.argv[1])
