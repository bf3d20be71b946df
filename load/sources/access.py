"""From a web server's access log: lines that a mapping knows become requests of this service."""

from __future__ import annotations

import gzip
import hashlib
import random
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from load.errors import LoadError
from load.sources.account import Account
from load.sources.mapping import Mapping, read_mapping
from load.sources.requests import in_order
from load.traffic import chosen_users
from load.traffic_log import Entry

LATE_US = 60_000_000
"""Servers write a line when they have answered: one may begin this much before the line above it."""

NO_LINE = "not a line of this format"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`spread` in seconds: how coarse the log's times are. With users, each visitor is always the same one of them."""

    mapping: Path | None = None
    users: Path | None = None
    users_count: int | None = None
    user_template: str | None = None
    spread: float = 1.0
    placement: str = "home"
    count: int = 20
    seed: int = 1


def entries(inputs: Sequence[Path], settings: Settings, account: Account) -> Iterator[Entry]:
    """The requests that the mapping makes of these lines, in the order of time; files follow one another.

    Lines without a match, and those more than a minute before one above them, are accounted for. Raises LoadError that
    names the place for a mapping that is none and a file that cannot be read.
    """
    mapping = read_mapping(settings.mapping)
    users = chosen_users(settings.users, settings.users_count, settings.user_template)
    spread_us = round(settings.spread * 1e6)
    made = _made(_lines(inputs), mapping, users, settings, account, spread_us)
    yield from in_order(made, LATE_US + spread_us)


def visitor(found: dict[str, str], seed: int) -> int:
    """Who sent a line: a number, uint64, from host and agent, the same wherever the two are."""
    text = f"{seed}\n{found.get('host', '')}\n{found.get('agent', '')}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _made(
    lines: Iterator[tuple[str, str]],
    mapping: Mapping,
    users: list[str] | None,
    settings: Settings,
    account: Account,
    spread_us: int,
) -> Iterator[tuple[int, Entry]]:
    rng = random.Random(settings.seed)
    latest = 0
    for place, line in lines:
        account.read += 1
        found = mapping.match(line)
        at_us = None if found is None else mapping.microseconds(found["time"])
        if found is None or at_us is None:
            account.drop_bad(NO_LINE, place)
            continue
        if at_us < latest - LATE_US:
            account.drop_bad("more than a minute before a line above it", place)
            continue
        number = visitor(found, settings.seed)
        who = f"v{number:016x}" if users is None else users[number % len(users)]
        known = {**found, "visitor": who, "placement": settings.placement}
        entry = mapping.request(at_us + int(rng.random() * spread_us), known, settings.count)
        if entry is None:
            account.drop(f"no mapping for {found['method'][:20]} of this path or status")
            continue
        latest = max(latest, at_us)
        # The horizon counts from the time that never falls; a line's own is at most LATE_US earlier.
        yield latest, entry


def _lines(inputs: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Each line with its place. What is no UTF-8 stays recognizable as bytes that were none."""
    for path in inputs:
        row = 0
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                for row, line in enumerate(file, start=1):
                    yield f"{path}: row {row}", line.decode(errors="backslashreplace").rstrip("\r\n")
        except (EOFError, zlib.error) as error:
            raise LoadError(f"{path}: row {row + 1}: cannot be read: {error}") from error
        except OSError as error:
            raise LoadError(f"{path}: {error.strerror or error}") from error
