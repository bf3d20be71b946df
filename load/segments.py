"""Which segment a user is in: by a table, or by what an answer explains of its model's inputs."""

from __future__ import annotations

import csv
from pathlib import Path

from load.comparison import NO_SEGMENT, Asked, Reply
from load.errors import LoadError


class Segments:
    """Which segment a request's user is in: by a table of users, or by an input that the answer explains."""

    def __init__(self, table: dict[str, str] | None, by: str | None) -> None:
        self._table, self.by = table, by

    def of(self, asked: Asked, a: Reply | str) -> str | None:
        """The segment, `(none)` for a user without one, or None where nobody asked for segments."""
        if self._table is not None:
            return self._table.get(asked.user or "", NO_SEGMENT)
        if self.by is None:
            return None
        inputs = a.inputs if isinstance(a, Reply) else {}
        for name, value in inputs.items():
            if self.by in (name, name.partition(":")[2]) and value is not None:
                return str(value)
        return NO_SEGMENT


def read_segments(path: Path) -> dict[str, str]:
    """A CSV with the columns `user_id` and `segment`. Raises LoadError that names the file and row."""
    segments: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if rows.fieldnames is None or not {"user_id", "segment"} <= set(rows.fieldnames):
                raise LoadError(f"{path}: expected the columns user_id and segment")
            for row in rows:
                user, segment = row["user_id"], row["segment"]
                if not user or not segment:
                    raise LoadError(f"{path}: row {rows.line_num}: no {'segment' if user else 'user_id'}")
                if segments.setdefault(user, segment) != segment:
                    raise LoadError(f"{path}: row {rows.line_num}: {user!r} is in {segments[user]!r} already")
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LoadError(f"{path}: no CSV in UTF-8: {error}") from error
    return segments
