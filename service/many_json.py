"""The requests of a batch as JSON and NDJSON, and its answers as NDJSON: a line each, with the place of its request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from service.errors import FieldError, InvalidRequest, MalformedBody
from service.http.strict import MOST_ERRORS, StrictDecoder, reason
from service.many import Done
from service.mistakes import mistakes
from service.problems import problem_of
from service.turns import Request
from service.wire import Problem, RankRequest, Recommendation, RecommendRequest


class RecommendBatch(Struct, frozen=True, forbid_unknown_fields=True):
    """Many requests. `defaults` has fields that stand for each request that does not say otherwise."""

    requests: list[RecommendRequest]
    defaults: dict[str, Any] = {}


class RankBatch(Struct, frozen=True, forbid_unknown_fields=True):
    """Many requests. `defaults` has fields that stand for each request that does not say otherwise."""

    requests: list[RankRequest]
    defaults: dict[str, Any] = {}


class BatchLine(Struct, frozen=True, omit_defaults=True):
    """What became of the request at `index`, from 0: the answer, or problem details."""

    index: int
    recommendation: Recommendation | None = None
    problem: Problem | None = None


class JsonRows:
    """Requests as their bytes came, None for a line that is too long."""

    def __init__(self, rows: Sequence[bytes | None], decoder: StrictDecoder, defaults: dict[str, Any]) -> None:
        self.rows, self.decoder, self.defaults = rows, decoder, defaults

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Request:
        row = self.rows[place]
        if row is None:
            raise MalformedBody("the line is longer than one request may be (service.max_body_bytes)")
        if self.defaults and isinstance(raw := self.decoder.loose(row), dict):
            row = json.dumps({**self.defaults, **raw}).encode("ascii")
        found: Request = self.decoder.decode(row)
        return found


def one_body(body: bytes, decoder: StrictDecoder, most: int) -> JsonRows:
    """The rows of `{"requests": [...], "defaults": {...}}`. Raises MalformedBody or InvalidRequest."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if unknown := [FieldError(name[:100], "Unknown field; known: defaults, requests")
                       for name in fields if name not in ("requests", "defaults")]:  # fmt: skip
            raise InvalidRequest(*unknown[:MOST_ERRORS])
        if "requests" not in fields:
            raise InvalidRequest(FieldError("requests", "Missing"))
        rows = [bytes(row) for row in msgspec.json.decode(fields["requests"], type=list[msgspec.Raw])]
    except msgspec.ValidationError as error:
        raise InvalidRequest(FieldError("requests" if body.lstrip()[:1] == b"{" else "", str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(reason(error)) from error
    before, _, after = body.rpartition(bytes(fields["requests"]))
    defaults = decoder.loose(before + b"0" + after).get("defaults", {})  # a key that stands twice is seen here
    refuse_many(len(rows), most)
    refuse_defaults(defaults, decoder.kind)
    return JsonRows(rows, decoder, defaults)


def refuse_many(rows: int, most: int) -> None:
    if rows > most:
        raise InvalidRequest(FieldError("requests", f"more than {most:,} users (batch.max_users)"))


def refuse_defaults(defaults: Any, kind: type[Struct]) -> None:
    """Raises InvalidRequest where no request could have them."""
    if not isinstance(defaults, dict):
        raise InvalidRequest(FieldError("defaults", f"Expected `object`, got {type(defaults).__name__}"))
    wrong = [one for one in mistakes(defaults, kind) if one.message != "Missing"]
    if wrong:
        raise InvalidRequest(*(FieldError(f"defaults.{one.path}", one.message) for one in wrong[:MOST_ERRORS]))


class Lines:
    """NDJSON of what is done."""

    def begin(self) -> bytes:
        return b""

    def some(self, done: Sequence[Done]) -> bytes:
        return b"".join(self.line(one) for one in done)

    def end(self) -> bytes:
        return b""

    def line(self, one: Done) -> bytes:
        if isinstance(one.outcome, Exception):
            content = BatchLine(one.index, problem=problem_of(one.outcome))
        else:
            content = BatchLine(one.index, one.outcome)
        return msgspec.json.encode(content) + b"\n"
