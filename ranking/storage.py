"""Where a registry's files lie: a protocol, and the plain directory. Object stores are `ranking.object_store`."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from ranking.errors import RegistryBusy, RegistryUnavailable
from ranking.manifest import MANIFEST, versions

ALIASES, LOCK = "aliases.json", ".aliases.lock"

Replace = Callable[[bytes], None]
"""Makes these bytes all of a model's aliases.json, at once."""


class Storage(Protocol):
    """Holds models below one place. `local` is where a fetched version lies on this machine."""

    local: Path

    def home(self, name: str) -> str:
        """Where a model lies, for people."""

    def names(self) -> list[str]:
        """What may be models, by name."""

    def versions(self, name: str) -> list[str]:
        """The versions that are there as a whole, oldest first."""

    def aliases(self, name: str) -> bytes | None:
        """A model's aliases.json, None where there is none. Raises RegistryUnavailable."""

    def stamp(self, name: str) -> Hashable:
        """What is another whenever aliases.json is; costs a look, not a read. Raises RegistryUnavailable."""

    def locked(self, name: str) -> AbstractContextManager[Replace]:
        """Nobody else changes this model's aliases meanwhile. Raises RegistryBusy where somebody else does."""

    def fetch(self, name: str, version: str) -> Path:
        """The version's directory on this machine, whole. Raises BundleError or RegistryUnavailable."""

    def manifest(self, name: str, version: str) -> bytes:
        """Raises FileNotFoundError or RegistryUnavailable."""

    def size(self, name: str, version: str) -> int:
        """Bytes that the version's files take there."""

    def publish(self, name: str, write: Callable[[Path], Path]) -> Path:
        """The next version: `write` makes it below the directory that it is given, and returns its place."""

    def remove(self, name: str, version: str) -> None:
        """Deletes a version's files but for its manifest, which keeps the number from being given again."""


class LocalDirectory:
    """Models below a directory of this machine (or of a file system that all of them share and that knows flock)."""

    def __init__(self, models: Path) -> None:
        self.local = models

    def home(self, name: str) -> str:
        return str(self.local / name)

    def names(self) -> list[str]:
        entries = sorted(self.local.iterdir()) if self.local.is_dir() else []
        return [one.name for one in entries if not one.name.startswith(".")]

    def versions(self, name: str) -> list[str]:
        return versions(self.local, name)

    def aliases(self, name: str) -> bytes | None:
        path = self.local / name / ALIASES
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RegistryUnavailable(f"{path}: {error.strerror or error}") from error

    def stamp(self, name: str) -> Hashable:
        path = self.local / name / ALIASES
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RegistryUnavailable(f"{path}: {error.strerror or error}") from error
        return found.st_ino, found.st_mtime_ns, found.st_size

    @contextmanager
    def locked(self, name: str) -> Iterator[Replace]:
        path = self.local / name / LOCK
        with exclusively(path, wait=False):
            yield lambda content: replace_file(path.with_name(ALIASES), content)

    def fetch(self, name: str, version: str) -> Path:
        return self.local / name / version

    def manifest(self, name: str, version: str) -> bytes:
        return (self.local / name / version / MANIFEST).read_bytes()

    def size(self, name: str, version: str) -> int:
        home = self.local / name / version
        return sum(one.stat().st_size for one in home.iterdir()) if home.is_dir() else 0

    def publish(self, name: str, write: Callable[[Path], Path]) -> Path:
        return write(self.local)

    def remove(self, name: str, version: str) -> None:
        try:
            for one in (self.local / name / version).iterdir():
                if one.name != MANIFEST:
                    one.unlink()
        except OSError as error:
            raise RegistryUnavailable(f"{error.filename}: {error.strerror or error}") from error


@contextmanager
def exclusively(path: Path, *, wait: bool) -> Iterator[None]:
    """Holds a file's lock, which ends with the process whatever becomes of it. Raises RegistryBusy where another one
    holds it and `wait` is false."""
    try:
        file = path.open("a")
    except OSError as error:
        raise RegistryUnavailable(f"{path}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise RegistryBusy(f"{path.parent}: another change is under way; nothing was done") from error
        yield


def replace_file(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.partial")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise RegistryUnavailable(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)
