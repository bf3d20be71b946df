"""A deployment's directory: where each thing lives, and the Valkey that may run beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from features.store import connection, set_address
from service.config import FILE, Config, read_config
from service.console import console
from service.valkey import EmbeddedValkey, free_port, taken


@dataclass(frozen=True, slots=True)
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

    @property
    def repo(self) -> Path:
        return self.directory / self.config.features.repo

    @property
    def models(self) -> Path:
        return self.directory / self.config.models.directory

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
