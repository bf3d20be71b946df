"""Models in an object store, behind an fsspec URL. docs/models.md says what each store promises.

URL/<name>/aliases.json               replaced by one write, which object stores show whole or not at all
URL/<name>/.aliases.lock              who changes it: made only where there is none, so that one of two gets it
URL/<name>/<version>/…, manifest.json  the manifest is written last: without one there is no version
URL/<name>/.<version>.claim            who writes this version just now
CACHE/<name>/<version>/…              the same on this machine, fetched as a whole

Each process opens the store for itself, since clients do not outlive a fork.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from errno import ENOENT
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from ranking.errors import BundleError, RankingError, RegistryBusy, RegistryError, RegistryUnavailable
from ranking.manifest import MANIFEST, check_files, read_manifest
from ranking.object_lock import Lock, create
from ranking.storage import ALIASES, LOCK, Replace, exclusively

STAMPS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "updated", "created", "size")
"""What stores say of an object that is another when the object is."""


class ObjectStore:
    """Models below a URL. Raises RegistryError where nothing here speaks to it."""

    def __init__(self, url: str, cache: Path, clock: Callable[[], float] = time.time) -> None:
        self.url, self.local, self.clock = url.rstrip("/"), cache, clock
        self.opened: tuple[int, Any] | None = None
        with self.asking():
            try:
                fsspec.get_filesystem_class(url.partition("://")[0])
            except (ImportError, ValueError) as error:
                raise RegistryError(f"models.directory: {url}: {' '.join(str(error).split())}") from error

    @property
    def fs(self) -> Any:
        if self.opened is None or self.opened[0] != os.getpid():
            self.opened = os.getpid(), url_to_fs(self.url)[0]
        return self.opened[1]

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Raises RegistryUnavailable for whatever the store's client raises."""
        try:
            yield
        except RankingError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise RegistryUnavailable(f"{self.url}: {said}") from error

    def home(self, name: str) -> str:
        return f"{self.url}/{name}"

    def names(self) -> list[str]:
        return sorted({path.split("/")[-3] for path in self.manifests("*")})

    def versions(self, name: str) -> list[str]:
        found = [path.split("/")[-2] for path in self.manifests(name)]
        return sorted((one for one in found if one.isdigit()), key=int)

    def manifests(self, name: str) -> list[str]:
        with self.asking():
            self.fs.invalidate_cache()
            return [str(path) for path in self.fs.glob(f"{self.url}/{name}/*/{MANIFEST}")]

    def aliases(self, name: str) -> bytes | None:
        with self.asking():
            try:
                return bytes(self.fs.cat_file(f"{self.home(name)}/{ALIASES}"))
            except FileNotFoundError:
                return None

    def stamp(self, name: str) -> Hashable:
        with self.asking():
            try:
                self.fs.invalidate_cache(f"{self.home(name)}/{ALIASES}")
                found = self.fs.info(f"{self.home(name)}/{ALIASES}")
            except FileNotFoundError:
                return None
        return tuple(str(found.get(one)) for one in STAMPS)

    @contextmanager
    def locked(self, name: str) -> Iterator[Replace]:
        lock = Lock(self.fs, f"{self.home(name)}/{LOCK}", self.clock)
        with self.asking():
            lock.take()

        def replace(content: bytes) -> None:
            with self.asking():
                lock.check()
                self.fs.pipe_file(f"{self.home(name)}/{ALIASES}", content)

        try:
            yield replace
        finally:
            with self.asking():
                lock.release()

    def manifest(self, name: str, version: str) -> bytes:
        path = f"{self.home(name)}/{version}/{MANIFEST}"
        with self.asking(), suppress(FileNotFoundError):
            return bytes(self.fs.cat_file(path))
        raise FileNotFoundError(ENOENT, "no such file", path)

    def size(self, name: str, version: str) -> int:
        with self.asking():
            self.fs.invalidate_cache()
            return sum(int(one["size"]) for one in self.fs.find(f"{self.home(name)}/{version}", detail=True).values())

    def fetch(self, name: str, version: str) -> Path:
        """What is here already is taken where its manifest is the store's, byte for byte. Who fetches the same version
        at the same time waits, and takes it then."""
        where, home = f"{self.home(name)}/{version}", self.local / name
        try:
            declared = self.manifest(name, version)
        except FileNotFoundError as error:
            raise BundleError(where, "no such file", file=MANIFEST) from error
        with self.asking():
            home.mkdir(parents=True, exist_ok=True)
            with exclusively(home / f".{version}.lock", wait=True):
                there = home / version
                if not ((there / MANIFEST).is_file() and (there / MANIFEST).read_bytes() == declared):
                    self.bring(where, declared, there)
                return there

    def bring(self, where: str, declared: bytes, there: Path) -> None:
        """Fetches into a directory beside, checks that against the manifest, and renames it into place."""
        beside = there.with_name(f".{there.name}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            (beside / MANIFEST).write_bytes(declared)
            manifest = read_manifest(beside)
            for file in manifest.files:
                if Path(file).name != file:
                    raise BundleError(where, "is no name of a file in a bundle", file=file)
                with suppress(FileNotFoundError):  # told below as every other difference is
                    self.fs.get_file(f"{where}/{file}", str(beside / file))
            check_files(beside, manifest)
            shutil.rmtree(there, ignore_errors=True)
            beside.rename(there)
        except BundleError as error:
            raise BundleError(where, error.message, file=error.file) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def publish(self, name: str, write: Callable[[Path], Path]) -> Path:
        """Writes the version on this machine, then uploads it: files first, the manifest last."""
        with self.asking():
            self.local.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".publishing-", dir=self.local) as beside:
            version, claim = self.claim(name)
            try:
                before = Path(beside) / name / str(version - 1)
                before.mkdir(parents=True)  # stands for what is there already, so that the next number is the right one
                written = write(Path(beside))
                with self.asking():
                    self.upload(written, f"{self.home(name)}/{version}")
                    return self.keep(written, self.local / name / str(version))
            finally:
                with self.asking():
                    self.fs.rm_file(claim)

    def claim(self, name: str) -> tuple[int, str]:
        """The next number, and the object that keeps others from taking it. A number that somebody has claimed, and
        never published, is left out."""
        version = int((self.versions(name) or ["0"])[-1]) + 1
        with self.asking():
            while not create(self.fs, claim := f"{self.home(name)}/.{version}.claim", b"{}"):
                version += 1
        return version, claim

    def upload(self, written: Path, where: str) -> None:
        try:
            for file in sorted(written.iterdir()):
                if file.name != MANIFEST:
                    self.fs.put_file(str(file), f"{where}/{file.name}")
            if not create(self.fs, f"{where}/{MANIFEST}", (written / MANIFEST).read_bytes()):
                raise RegistryBusy(f"{where}: was published by somebody else meanwhile")
        except Exception:
            if not self.fs.exists(f"{where}/{MANIFEST}"):
                with suppress(FileNotFoundError):
                    self.fs.rm(where, recursive=True)
            raise

    def keep(self, written: Path, there: Path) -> Path:
        """The version as if it had been fetched."""
        there.parent.mkdir(parents=True, exist_ok=True)
        with exclusively(there.parent / f".{there.name}.lock", wait=True):
            shutil.rmtree(there, ignore_errors=True)
            return written.rename(there)

    def remove(self, name: str, version: str) -> None:
        with self.asking():
            self.fs.invalidate_cache()
            for path in self.fs.find(f"{self.home(name)}/{version}"):
                if path.rpartition("/")[2] != MANIFEST:
                    self.fs.rm_file(path)
            shutil.rmtree(self.local / name / version, ignore_errors=True)
