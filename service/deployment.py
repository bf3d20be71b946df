"""A deployment's directory: where each thing lives, and the Valkey that may run beside it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.files import replace_file
from features.store import connection, set_address
from service.config import FILE, Config, read_config
from service.console import console
from service.errors import ConfigError
from service.valkey import EmbeddedValkey, free_port, taken

if TYPE_CHECKING:
    from ranking.registry import Registry

SOURCE = "source.json"
"""What a deployment's shop was made from, with an id: features and models of another shop are not its own."""

MATERIALIZED = "materialized.json"
"""Beside the features: the id of the shop whose features the online store holds, written when all of them are there."""


@dataclass(frozen=True)
class Deployment:
    """DIR and its settings. Raises ConfigError when DIR has no usable endcap.toml."""

    directory: Path
    config: Config

    @classmethod
    def at(cls, directory: Path) -> Deployment:
        return cls(directory, read_config(directory))

    @staticmethod
    def exists(directory: Path) -> bool:
        return (directory / FILE).exists()

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def features(self) -> Path:
        return self.data / "features"

    def shop(self) -> dict[str, Any]:
        """What the shop was made from; empty where there is none, or one half written."""
        return read_record(self.data / SOURCE)

    def shop_id(self) -> str:
        return str(self.shop().get("id", ""))

    def line(self) -> str:
        """The shop's line: the same for an import and those that go on from it."""
        return str(self.shop().get("line", ""))

    def name_shop(self, made_from: Mapping[str, object]) -> None:
        """Records a shop just written, under an id of its own. An import after another of the same format goes on with
        that one's shop; a made-up one is always another."""
        before = self.shop()
        goes_on = made_from["format"] != "generated" and before.get("format") == made_from["format"]
        line = before.get("line") if goes_on else None
        record = {**made_from, "at": time.time(), "id": secrets.token_hex(8), "line": line or secrets.token_hex(8)}
        write_record(self.data / SOURCE, record)

    def is_materialized(self) -> bool:
        """Whether the features of this very shop were all loaded into the online store."""
        shop = self.shop_id()
        return bool(shop) and read_record(self.features / MATERIALIZED).get("shop") == shop

    def mark_materialized(self) -> None:
        write_record(self.features / MATERIALIZED, {"shop": self.shop_id()})

    @property
    def repo(self) -> Path:
        return self.directory / self.config.features.repo

    @cached_property
    def registry(self) -> Registry:
        """The models. Raises RegistryError where `models.directory` is a URL that nothing here speaks to."""
        from service.registry import registry_of  # which brings torch, and many a command needs no models

        return registry_of(self.directory, self.config)

    @contextmanager
    def online_store(self) -> Iterator[None]:
        """The online store, up for as long as this lasts. Where `embedded_valkey` is set, this starts it unless another
        command of this deployment already has; a port that someone else took is exchanged for a free one."""
        if not self.config.features.embedded_valkey:
            yield
            return
        options = connection(self.repo)
        valkey = EmbeddedValkey(self.directory / "valkey", options["host"], options["port"])
        if not valkey.answers() and taken(valkey.host, valkey.port):
            old, valkey.port = valkey.port, free_port(valkey.host)
            set_address(self.repo, f"{valkey.host}:{valkey.port}")
            console.print(f"port {old} is in use by another program; Valkey moves to {valkey.port}")
        try:
            valkey.start()
            yield
        finally:
            valkey.stop()


def read_record(path: Path) -> dict[str, Any]:
    """A small JSON file; empty where there is none. Raises ConfigError when it is something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{path}: is no JSON object")
    return record


def write_record(path: Path, record: Mapping[str, object]) -> None:
    replace_file(path, json.dumps(record).encode())
