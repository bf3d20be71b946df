"""What becomes of a recorded body: whose it is, and what of it is dropped or hashed.

A body that cannot be read cannot be cleaned either. So it is written as so many `x`: it is refused again when it is
played, for the same reason, and tells nothing.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from service.errors import MalformedBody
from service.http.strict import LOOSE

HASH_BYTES = 16
GZIP, ZLIB, RAW = 31, 15, -15
"""zlib's `wbits`."""
PLAIN = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
NDJSON = "application/x-ndjson"


class Row(Struct):
    """Whose an event is."""

    user_id: str | None = None


class Who(Struct):
    """Whose a request is."""

    user_id: str | None = None
    events: list[Row] = []


WHO = msgspec.json.Decoder(Who)


def decoded(body: bytes, coding: str, most: int) -> bytes | None:
    """A body without its content coding; None where it is in none that we read, or broken. One that would be longer
    than `most` bytes comes back one byte longer than that."""
    if coding == "identity":
        return body
    if coding not in ("gzip", "deflate"):
        return None
    bits = GZIP if coding == "gzip" else ZLIB if body[:1] and body[0] & 15 == 8 else RAW  # as aiohttp tells them apart
    reader = zlib.decompressobj(bits)
    try:
        found = reader.decompress(body, most + 1)
    except zlib.error:
        return None
    return found if reader.eof or len(found) > most else None


def user_of(body: bytes) -> str | None:
    """Whose a request is; of several events the first one's. None for an anonymous one, and where nobody can tell."""
    try:
        who = WHO.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return who.user_id if who.user_id is not None or not who.events else who.events[0].user_id


class Sample:
    """The users that are recorded: the same ones in every process and after every restart, whatever they do.

    Drawn by user and not by request, because a visit is one thing: a replay of every tenth request would ask for
    shoppers whose events it never sent. What has no user is drawn by request.
    """

    def __init__(self, share: float, key: bytes) -> None:
        self.share, self.key = share, key

    def has(self, body: bytes) -> bool:
        user = user_of(body)
        if user is None:
            return random.random() < self.share
        drawn = blake2b(user.encode("utf-8"), digest_size=8, key=self.key, person=b"share").digest()
        return int.from_bytes(drawn, "big") < self.share * 2**64


class Cleaner:
    """Drops and hashes fields of a JSON body.

    A name such as `context.country` is every field `country` of a field `context`, however deep; lists are looked
    through. A hash is keyed BLAKE2b of the value, so that one user stays one user and cannot be guessed from outside;
    of a field that holds more than one value each is hashed, and null stays null.
    """

    def __init__(self, drop: Sequence[str], hashed: Sequence[str], key: bytes) -> None:
        self.drop = [tuple(name.split(".")) for name in drop]
        self.hashed = [tuple(name.split(".")) for name in hashed]
        self.last = frozenset(name[-1] for name in (*self.drop, *self.hashed))
        self.key = key

    def text(self, body: bytes, *, lines: bool) -> str:
        """The body, or an `x` for each byte of it; where it is NDJSON, so each line."""
        if lines:
            return "\n".join(self.text(line, lines=False) if line.strip() else "" for line in body.split(b"\n"))
        try:
            cleaned = self._clean(LOOSE.decode(body.decode("utf-8")), ())
            text = PLAIN.encode(cleaned)
            text.encode("utf-8")  # half a surrogate pair is no text
        except (ValueError, RecursionError, MalformedBody):
            return "x" * len(body)
        return text

    def _clean(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [self._clean(one, path) for one in value]
        if not isinstance(value, dict):
            return value
        found = {}
        for name, one in value.items():
            here = (*path, name)
            if name not in self.last:
                found[name] = self._clean(one, here)
            elif not ends(here, self.drop):
                found[name] = self._hash(one) if ends(here, self.hashed) else self._clean(one, here)
        return found

    def _hash(self, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            return [self._hash(one) for one in value]
        if isinstance(value, dict):
            return {name: self._hash(one) for name, one in value.items()}
        text = value if isinstance(value, str) else json.dumps(value)
        return blake2b(text.encode("utf-8"), digest_size=HASH_BYTES, key=self.key, person=b"field").hexdigest()


def ends(path: tuple[str, ...], names: Sequence[tuple[str, ...]]) -> bool:
    """Whether a path ends as one of the names does."""
    return any(path[-len(name) :] == name for name in names)


class Bodies:
    """What is written of a body. `most`: bytes, beyond which the service reads none as a whole."""

    def __init__(self, sample: Sample | None, cleaner: Cleaner | None, most: int) -> None:
        self.sample, self.cleaner, self.most = sample, cleaner, most

    def read(self, body: bytes, coding: str) -> bytes:
        """A body's bytes without its content coding; `x` where they are not to be had."""
        found = decoded(body, coding, self.most)
        return b"x" * len(body) if found is None else found

    def wanted(self, body: bytes, *, lines: bool) -> bool:
        return self.sample is None or self.sample.has(body.lstrip().partition(b"\n")[0] if lines else body)

    def text(self, body: bytes, *, lines: bool) -> str:
        """UTF-8 text to be written."""
        if self.cleaner is not None:
            return self.cleaner.text(body, lines=lines)
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError:
            return "x" * len(body)
