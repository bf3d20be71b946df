"""Strict JSON: what two parsers could read differently is refused, and every bad field is named."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from service.errors import FieldError, InvalidRequest, MalformedBody
from service.mistakes import mistakes

T = TypeVar("T")


MOST_ERRORS = 20


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise MalformedBody(f"the key {name[:100]!r} stands twice in one object")
            seen.add(name)
    return found


def refuse_constant(name: str) -> Any:
    raise MalformedBody(f"{name} is no JSON number")


LOOSE = json.JSONDecoder(object_pairs_hook=refuse_duplicates, parse_constant=refuse_constant)
LENIENT = json.JSONDecoder(parse_int=str, parse_float=str, strict=False)
"""Finds where a value ends, whatever else is wrong with it."""

BLANK = re.compile(r"[ \t\n\r]*")
CLOSING = re.compile(r"\][ \t\n\r]*\}[ \t\n\r]*")


def sole_field(body: bytes, name: str) -> bytes:
    """The value, as it stands, of an object's only field. Raises MalformedBody or InvalidRequest."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        raise InvalidRequest(FieldError("", str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(reason(error)) from error
    unknown = [FieldError(one[:100], f"Unknown field; known: {name}") for one in fields if one != name]
    if unknown or name not in fields:
        raise InvalidRequest(*(unknown[:MOST_ERRORS] or [FieldError(name, "Missing")]))
    value = bytes(fields[name])
    try:  # msgspec takes the last of two keys that are the same
        before, _, after = body.rpartition(value)
        LOOSE.decode((before + b"0" + after).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedBody(reason(error)) from error
    return value


def rows_of(body: bytes, name: str, most: int, more: str = "") -> list[bytes]:
    """The rows of a body `{name: [...]}`, as they stand. Raises MalformedBody or InvalidRequest."""
    try:
        rows = [bytes(row) for row in msgspec.json.decode(sole_field(body, name), type=list[msgspec.Raw])]
    except msgspec.ValidationError as error:
        raise InvalidRequest(FieldError(name, str(error))) from error
    except MalformedBody:
        # msgspec refuses the whole for half a surrogate pair, or a NaN, in one row. Each row is still read strictly.
        if (found := lenient_rows(body, name)) is None:
            raise
        rows = found
    if len(rows) > most:
        raise InvalidRequest(FieldError(name, f"Expected at most {most:,} rows, got {len(rows):,}{more}"))
    return rows


def lenient_rows(body: bytes, name: str) -> list[bytes] | None:
    """The rows of a body `{name: [...]}`, as they stand, some of which may be no JSON; None where they cannot be told
    apart."""
    text = body.decode("utf-8", "surrogateescape")
    blank = BLANK.pattern
    opening = re.match(rf'{blank}\{{{blank}"{name}"{blank}:{blank}\[{blank}', text)
    if opening is None:
        return None
    rows: list[bytes] = []
    at, another = opening.end(), True
    try:
        while another:
            _, end = LENIENT.raw_decode(text, at)
            rows.append(text[at:end].encode("utf-8", "surrogateescape"))
            at = skipped(text, end)
            if another := text.startswith(",", at):
                at = skipped(text, at + 1)
    except (ValueError, RecursionError):
        return None
    return rows if CLOSING.fullmatch(text, at) else None


def skipped(text: str, at: int) -> int:
    """The place after the blanks at `at`."""
    blanks = BLANK.match(text, at)
    return at if blanks is None else blanks.end()


class StrictDecoder:
    """Decodes a body into one request type. Raises MalformedBody or InvalidRequest; never anything else."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self.decoder = msgspec.json.Decoder(kind)
        self.fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}

    def decode(self, body: bytes) -> Any:
        try:
            request = self.decoder.decode(body)
        except msgspec.ValidationError as error:
            raise InvalidRequest(*self.complaints(self.loose(body), error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedBody(reason(error)) from error
        self.loose(body)
        return request

    def convert(self, raw: Any) -> Any:
        """Plain values, as a door reads them that is no JSON. Raises InvalidRequest."""
        if found := list(itertools.islice(not_finite(raw, ""), MOST_ERRORS)):
            raise InvalidRequest(*found)
        try:
            return msgspec.convert(raw, self.kind)
        except msgspec.ValidationError as error:
            raise InvalidRequest(*self.complaints(raw, error)) from error

    def loose(self, body: bytes) -> Any:
        """The body as plain Python values, keys that stand twice refused."""
        try:
            text = body.decode("utf-8")
            decoded = LOOSE.decode(text)
            if "\\ud" in text.lower():  # an escape that json lets stand alone, and that no encoder can write
                json.dumps(decoded, ensure_ascii=False).encode("utf-8")
            return decoded
        except (ValueError, RecursionError) as error:
            raise MalformedBody(reason(error)) from error

    def complaints(self, raw: Any, first: msgspec.ValidationError) -> list[FieldError]:
        """Every mistake, the first MOST_ERRORS of them."""
        errors = list(itertools.islice(mistakes(raw, self.kind), MOST_ERRORS + 1))
        if len(errors) > MOST_ERRORS:
            errors[MOST_ERRORS:] = [FieldError("", f"and more; the first {MOST_ERRORS} are listed")]
        return errors or [FieldError("", str(first))]


def not_finite(raw: Any, path: str) -> Iterator[FieldError]:
    """The numbers that are none, for which JSON has no word."""
    for name, value in raw.items() if isinstance(raw, dict) else ():
        here = f"{path}.{name[:100]}" if path else name[:100]
        if isinstance(value, dict):
            yield from not_finite(value, here)
        elif isinstance(value, float) and not math.isfinite(value):
            yield FieldError(here, f"Expected a finite number, got {value}")


def reason(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)
