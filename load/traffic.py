"""Who asks for what: users drawn by Zipf, and the requests that they send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from load.errors import LoadError
from load.http1 import Target, encode_post
from load.outcome import Planned
from load.schedule import Times


def read_users(path: Path) -> list[str]:
    """User ids, one a line, UTF-8. Raises LoadError that names the file and row for an empty or unreadable line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror}") from error
    users = []
    for row, line in enumerate(lines, start=1):
        try:
            user = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise LoadError(f"{path}: row {row}: not UTF-8") from error
        if not user.strip():
            raise LoadError(f"{path}: row {row}: no user id")
        users.append(user)
    if not users:
        raise LoadError(f"{path}: no users")
    return users


def template_users(template: str, count: int) -> list[str]:
    """`count` user ids from a printf template with one number in it: `u%05d` gives u00000, u00001 and so on."""
    try:
        users = [template % number for number in range(count)]
    except (TypeError, ValueError) as error:
        raise LoadError(f"user template {template!r}: {error}; expected one number in it, such as u%05d") from error
    if len(set(users)) != count:
        raise LoadError(f"user template {template!r}: gives the same id twice")
    return users


def chosen_users(file: Path | None, count: int | None, template: str | None) -> list[str] | None:
    """User ids as a command line asks for them: of a file, or made up; None for neither. Raises LoadError for both."""
    if count is None:
        if template is not None:
            raise LoadError("--user-template belongs to --users-count, not to --users")
        return None if file is None else read_users(file)
    if file is not None:
        raise LoadError("--users-count: not allowed with --users")
    return template_users(template or "u%05d", count)


def zipf(population: int, size: int, exponent: float, seed: int) -> NDArray[np.int64]:
    """Draw `size` indices, int64[size], below `population`: the k-th most frequent in proportion to 1 / k**exponent.

    Which index is the k-th is shuffled by the seed, so that the order of a list of users carries no weight. Exponent 0
    makes all alike. (Zipf's law for a finite population; numpy's own `zipf` has an endless one.)
    """
    rng = np.random.default_rng(seed)
    weights = np.arange(1, population + 1, dtype=np.float64) ** -exponent
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(size), side="right")
    shuffled: NDArray[np.int64] = rng.permutation(population)[np.minimum(ranks, population - 1)]
    return shuffled


def recommendation_requests(
    target: Target, times: Times, users: list[str], drawn: NDArray[np.int64], placement: str, count: int
) -> Iterator[Planned[bytes]]:
    """One `POST /v1/recommendations` a time in `times`, float64[n] seconds, for `users[drawn[i]]`, drawn int64[n]."""
    for at, user in zip(times.tolist(), drawn.tolist(), strict=True):
        body = orjson.dumps({"user_id": users[user], "placement": placement, "count": count})
        yield Planned(at, encode_post(target, body))
