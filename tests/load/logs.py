"""Short ways to make a traffic log in a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson


def post(at_us: int, path: str = "/ok", body: Any = None, **fields: Any) -> dict[str, Any]:
    """A POST of a JSON body."""
    text = orjson.dumps({} if body is None else body).decode()
    return {"at_us": at_us, "method": "POST", "path": path, "headers": {}, "body": text, **fields}


def write_log(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    """Rows as NDJSON; a string is a line as it stands."""
    lines = (row.encode() if isinstance(row, str) else orjson.dumps(row) for row in rows)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def steady(path: Path, rate: float, count: int, url: str = "/ok") -> Path:
    """`count` posts, evenly spaced, each with its number in the body."""
    return write_log(path, (post(round(n / rate * 1e6), url, {"number": n}) for n in range(count)))
