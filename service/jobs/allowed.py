"""Files that a job may read: those that `jobs.allow` names, by directory or by the beginning of a URL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from yarl import URL

from service.errors import FieldError, InvalidRequest
from service.webhooks.outbound import Refused, check_url


def is_url(text: str) -> bool:
    return "://" in text


def allowed_file(text: str, allow: Sequence[str]) -> Path:
    """The file itself, links followed. Raises InvalidRequest; of a file that is not allowed it is not told whether
    there is one."""
    try:
        path = Path(text).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidRequest(FieldError("parquet", "is no path")) from error
    folders = [Path(one).resolve() for one in allow if not is_url(one)]
    if not Path(text).is_absolute() or not any(path.is_relative_to(one) for one in folders):
        raise InvalidRequest(FieldError("parquet", "is not below a directory of jobs.allow"))
    if not path.is_file():
        raise InvalidRequest(FieldError("parquet", "there is no such file"))
    return path


def allowed_url(text: str, allow: Sequence[str], hosts: Sequence[str]) -> URL:
    """Raises InvalidRequest. `hosts` may be private."""
    try:
        url = check_url(text, hosts)
    except Refused as error:
        raise InvalidRequest(FieldError("parquet", str(error))) from error
    if ".." in unquote(unquote(text)):
        raise InvalidRequest(FieldError("parquet", "has .. in it"))
    for one in allow:
        base = URL(one) if is_url(one) else None
        if base is not None and url.origin() == base.origin() and url.path.startswith(base.path.rstrip("/") + "/"):
            return url
    raise InvalidRequest(FieldError("parquet", "does not begin with a URL of jobs.allow"))
