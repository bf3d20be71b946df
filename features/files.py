"""Files that are written beside and then renamed, so that nobody ever reads half of one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from features.errors import NotWritten


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises NotWritten, which names `path`, where the disk refuses what is done within."""
    try:
        yield
    except OSError as error:
        raise NotWritten(f"{path}: cannot be written: {said(error)}") from error


def replace_file(path: Path, content: bytes) -> None:
    """Makes `content` all of the file. Raises NotWritten; the old file then stands, and nothing is left beside it."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        with writing(path):
            beside.write_bytes(content)
            beside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def said(error: OSError) -> str:
    """What went wrong, in one line, without the path."""
    return error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
