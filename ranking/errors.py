"""What can go wrong in the ranking room.

RankingError
 |- BundleError        a bundle that cannot be trusted or does not fit: names the bundle, the file and what differs
 |- TrainingError      data from which no model can be trained
 |- UnknownVersion     a model or version that is not loaded
 |- BadTensor          an input of a module that it cannot be given: names the tensor
 |- RegistryError      a change of which version stands for what that cannot be made; nothing was changed
 |   |- NoSuchVersion        of a model or version that is not in the registry
 |   |- RegistryBusy         another change is under way, or there has been one meanwhile
 |   |- RegistryUnavailable  the disk or the object store does not do as it is asked
 |- EngineError        a batch failed in a way that is not the request's fault
     |- EngineOverloaded   the queue before the engine has been long for too long
     |- EngineExpired      the query's time was up before its turn
     |- EngineStopped      the engine is draining or has ended
"""

from __future__ import annotations

from pathlib import Path


class RankingError(Exception):
    """Base of every error that the ranking room raises on purpose."""


class BundleError(RankingError):
    """A bundle that cannot be trusted or does not fit. `str()` is one line: `models/default/3: index.faiss: …`."""

    def __init__(self, bundle: Path | str, message: str, *, file: str | None = None) -> None:
        self.bundle, self.file, self.message = bundle, file, message
        super().__init__(": ".join(part for part in (str(bundle), file or "", message) if part))


class TrainingError(RankingError):
    """Data from which no model can be trained."""


class UnknownVersion(RankingError):
    """A model or version that is not loaded."""


class BadTensor(RankingError):
    """An input that a module cannot be given. `str()` is one line: `dense: [0, 3] is nan, expected …`."""

    def __init__(self, tensor: str, message: str) -> None:
        self.tensor, self.message = tensor, message
        super().__init__(f"{tensor}: {message}")


class RegistryError(RankingError):
    """A change of which version stands for what cannot be made, or what stands there cannot be read. One line."""


class NoSuchVersion(RegistryError):
    """The registry has no such model, or not this version of it."""


class RegistryBusy(RegistryError):
    """Another change is under way, or there has been one since this one was decided."""


class RegistryUnavailable(RegistryError):
    """The disk or the object store does not do as it is asked."""


class EngineError(RankingError):
    """A batch failed in a way that is not the request's fault."""


class EngineOverloaded(EngineError):
    """The queue before the engine has been long for too long."""


class EngineExpired(EngineError):
    """The query's time was up before its turn."""


class EngineStopped(EngineError):
    """The engine is draining or has ended."""
