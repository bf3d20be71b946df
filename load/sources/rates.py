"""From a file of rates, one count a second: arrivals uniform within each second, and shoppers drawn by Zipf."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from load import schedule
from load.errors import LoadError
from load.sources.account import Account
from load.sources.requests import recommendation
from load.traffic import chosen_users, zipf
from load.traffic_log import Entry

MOST = 2**31 - 1
"""Requests in one second; more is no rate but a mistake."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`start` and `seconds` cut the file, both in whole seconds; the log begins with second `start` as its zero."""

    users: Path | None = None
    users_count: int | None = None
    user_template: str | None = None
    zipf: float = 1.0
    placement: str = "home"
    count: int = 20
    start: int = 0
    seconds: int | None = None
    seed: int = 1


def entries(inputs: Sequence[Path], settings: Settings, account: Account) -> Iterator[Entry]:
    """One recommendation request an arrival; files follow one another. Raises LoadError that names file and row."""
    users = chosen_users(settings.users, settings.users_count, settings.user_template)
    if users is None:
        raise LoadError("--from rates: the file has no users: expected --users FILE or --users-count N")
    counts = np.concatenate([_read(path) for path in inputs])
    account.read = int(counts.sum())
    end = len(counts) if settings.seconds is None else settings.start + settings.seconds
    kept = counts[settings.start : end]
    if not len(kept):
        raise LoadError(f"--start {settings.start}: there are {len(counts)} seconds")
    if left_out := account.read - int(kept.sum()):
        account.dropped["outside --start and --seconds"] = left_out
    times = schedule.from_rates(kept, settings.seed)
    # Another stream of random numbers than the schedule's, which starts from the same seed.
    drawn = zipf(len(users), len(times), settings.zipf, settings.seed + 1)
    for at, user in zip(times, drawn, strict=True):
        yield recommendation(int(at * 1e6), users[user], settings.placement, settings.count)


def _read(path: Path) -> NDArray[np.int64]:
    counts = []
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for row, line in enumerate(file, start=1):
                text = line.strip()
                if not (text.isascii() and text.isdigit() and int(text) <= MOST):
                    raise LoadError(f"{path}: row {row}: {text[:40]!r} is not a number of requests")
                counts.append(int(text))
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise LoadError(f"{path}: row {len(counts) + 1}: cannot be read: {error}") from error
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror or error}") from error
    return np.array(counts, dtype=np.int64)
