"""Servers that the tests share: real ones, on free ports, ended at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from features.store import import_feast
from service.valkey import EmbeddedValkey, free_port

import_feast()  # before any test module does it the slow way


@dataclass(frozen=True)
class Server:
    host: str
    port: int

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Valkey for the whole session. Tests keep apart by Feast project name."""
    server = EmbeddedValkey(Path(tmp_path_factory.mktemp("valkey")), "127.0.0.1", free_port())
    server.start()
    yield Server(server.host, server.port)
    server.stop()
