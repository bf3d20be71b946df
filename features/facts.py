"""What Feast knows of a repo, asked in a process of its own: `python -m features.facts REPO` prints it as JSON.

Importing the Feast SDK takes seconds and a hundred megabytes, for which a process that answers shoppers has no other
use. A process that has imported it anyway asks it directly.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from features.child import child, last_line
from features.errors import FeaturesError, InputError
from features.freshness import ViewSpec, view_specs
from features.offer import Offer, offered
from features.registry import ServiceFeatures, service_features
from features.store import YAML, open_store, quiet, registry

Stamp = tuple[int, int]


class Facts(Struct, frozen=True):
    """`services`: by feature service and entity. `broken`: why a feature service could not be read. `specs`: every view
    of one entity. `files`: what all that was read from, where it is files. `offer`: what is read and pushed by name."""

    entities: tuple[str, ...]
    services: dict[str, dict[str, ServiceFeatures]]
    broken: dict[str, str]
    specs: list[ViewSpec]
    files: list[str]
    offer: Offer

    def service(self, name: str, entity: str) -> ServiceFeatures:
        """Raises FeaturesError when there is no such service or entity, or Feast could not read it."""
        if name in self.broken:
            raise FeaturesError(f"Feast's feature service {name!r}: {self.broken[name]}")
        if name not in self.services:
            known = ", ".join(sorted(self.services)) or "none"
            raise FeaturesError(f"Feast has no feature service {name!r}; there are: {known}")
        if entity not in self.entities:
            raise FeaturesError(f"Feast has no entity {entity!r}; there are: {', '.join(self.entities) or 'none'}")
        return self.services[name][entity]


class Said(Struct, omit_defaults=True):
    """What the process prints: the facts, or why there are none; `mistake`: it is an InputError."""

    facts: Facts | None = None
    error: str = ""
    mistake: bool = False


def gather(repo: Path) -> Facts:
    """Asks Feast in this process. Raises InputError or FeaturesError, as `open_store` and `view_specs` do."""
    store = open_store(repo)
    with quiet():
        entities = tuple(str(one.name) for one in store.list_entities())
        services, broken = dict[str, dict[str, ServiceFeatures]](), {}
        for name in sorted(str(one.name) for one in store.list_feature_services()):
            try:
                services[name] = {entity: service_features(store, name, entity) for entity in entities}
            except Exception as error:  # noqa: BLE001 - whatever Feast raises: no model may want this service
                broken[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        sources = [str(getattr(view.batch_source, "path", "")) for view in store.list_feature_views()]
        files = [str(repo / YAML), str(registry(repo)), *(one for one in sources if one)]
        return Facts(entities, services, broken, view_specs(store), files, offered(store))


class Feast:
    """A repo's facts. `start` asks, so that the caller can do something else until `facts` waits for the answer."""

    def __init__(self, repo: Path) -> None:
        self.repo = repo
        self.known: Facts | None = None
        self.stamps: dict[str, Stamp | None] = {}
        self.asking: subprocess.Popen[bytes] | None = None
        self.one_at_a_time = threading.Lock()

    def start(self) -> None:
        if "feast" in sys.modules or self.asking is not None:
            return
        self.asking = child("features.facts", str(self.repo))

    def facts(self) -> Facts:
        """As they are now; blocks. Any thread may ask. Raises InputError or FeaturesError."""
        with self.one_at_a_time:
            if self.known is None or self.stamps != {name: stamp(name) for name in self.known.files}:
                self.start()
                self.known = gather(self.repo) if self.asking is None else self.answer()
                self.stamps = {name: stamp(name) for name in self.known.files}
            return self.known

    def answer(self) -> Facts:
        assert self.asking is not None
        asked, self.asking = self.asking, None
        out, complaints = asked.communicate()
        try:
            said = msgspec.json.decode(out, type=Said)
        except msgspec.DecodeError as error:
            why = last_line(complaints, asked.returncode)
            raise FeaturesError(f"Feast could not be asked about {self.repo}: {why}") from error
        if said.facts is None:
            raise InputError(said.error) if said.mistake else FeaturesError(said.error)
        return said.facts

    def close(self) -> None:
        """Ends the asking, if nobody has waited for the answer."""
        if self.asking is not None:
            self.asking.kill()
            self.asking.communicate()
            self.asking = None


def stamp(name: str) -> Stamp | None:
    """What changes when a file does; None where there is no such file here."""
    try:
        found = Path(name).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def main(repo: str) -> None:
    out: Any = sys.stdout.buffer
    os.nice(5)  # beside a service that answers
    try:
        said = Said(gather(Path(repo)))
    except FeaturesError as error:
        said = Said(error=str(error), mistake=isinstance(error, InputError))
    out.write(msgspec.json.encode(said))


if __name__ == "__main__":
    main(sys.argv[1])
