"""Files written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from load.errors import LoadError


def write_whole(path: Path, content: bytes) -> None:
    """Write beside, then rename: a failure leaves what was there. Raises LoadError that names the path."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise LoadError(f"{path}: {error.strerror}") from error
