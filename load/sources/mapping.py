"""The TOML that says what a line of an access log looks like, and which request it becomes; access.toml by default."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from load.errors import LoadError
from load.sources.requests import JSON
from load.traffic_log import Entry

DEFAULT = Path(__file__).with_name("access.toml")
NEEDED = ("method", "target", "time")
ADDED = ("visitor", "placement")
COUNT = "{count:int}"
_NAME = re.compile(r"\{(\w+)\}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One [[request]]: `path` is a regular expression, `send` a method and a path, `body` a table that becomes JSON."""

    path: str
    send: str
    methods: tuple[str, ...] = ("GET",)
    statuses: list[str] | None = None
    headers: dict[str, str] = {}
    body: dict[str, Any] | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    request: list[Rule]
    line: str | None = None
    time: str | None = None


class Mapping:
    """A mapping that has been checked: every name that a rule uses is a group of its `path` or of `line`."""

    def __init__(self, line: str, time: str, rules: list[Rule]) -> None:
        self._line, self._time = _compiled("line", line), time
        for name in NEEDED:
            if name not in self._line.groupindex:
                raise LoadError(f"line: there is no group (?P<{name}>…)")
        self._rules = [(_compiled(f"request {number}: path", rule.path), rule) for number, rule in enumerate(rules, 1)]
        for number, (pattern, rule) in enumerate(self._rules, start=1):
            known = {*self._line.groupindex, *pattern.groupindex, *ADDED}
            method, _, path = rule.send.partition(" ")
            if not method.isupper() or not path.startswith("/"):
                raise LoadError(f"request {number}: send {rule.send!r}: expected a method and a path")
            if rule.statuses is not None and "status" not in self._line.groupindex:
                raise LoadError(f"request {number}: statuses: `line` has no group (?P<status>…)")
            for name in _names([path, *rule.headers.values(), rule.body]):
                if name not in known:
                    raise LoadError(f"request {number}: {{{name}}}: there are {', '.join(sorted(known))}")
        self._parse = lru_cache(maxsize=1000)(self._parsed)

    def match(self, line: str) -> dict[str, str] | None:
        """What the groups of `line` caught; None where it does not match."""
        found = self._line.fullmatch(line)
        return None if found is None else found.groupdict("")

    def microseconds(self, time: str) -> int | None:
        """Since the epoch, without an offset UTC; None for what is no such time."""
        return self._parse(time)

    def request(self, at_us: int, known: dict[str, str], count: int) -> Entry | None:
        """The request of the first rule that takes it; None where none does."""
        for pattern, rule in self._rules:
            if known["method"] not in rule.methods:
                continue
            if rule.statuses is not None and known["status"] not in rule.statuses:
                continue
            found = pattern.match(known["target"])
            if found is None:
                continue
            values = {**known, **{name: unquote(text) for name, text in found.groupdict("").items()}}
            method, _, path = rule.send.partition(" ")
            path = _filled(path, {name: quote(values[name], safe="") for name in _names(path)})
            headers = {name: _filled(text, values) for name, text in rule.headers.items()}
            if rule.body is None:
                return Entry(at_us, method, path, headers)
            body = msgspec.json.encode(_made(rule.body, values, count)).decode()
            return Entry(at_us, method, path, {**JSON, **headers}, body)
        return None

    def _parsed(self, time: str) -> int | None:
        try:
            at = datetime.strptime(time, self._time)
        except ValueError:
            return None
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        us = (at - _EPOCH) // timedelta(microseconds=1)
        return us if us >= 0 else None


def read_mapping(path: Path | None) -> Mapping:
    """The mapping of a file; without one, or where it says nothing of the line, the default. Raises LoadError."""
    default = msgspec.toml.decode(DEFAULT.read_bytes(), type=_File)
    assert default.line is not None and default.time is not None
    if path is None:
        return Mapping(default.line, default.time, default.request)
    try:
        given = msgspec.toml.decode(path.read_bytes(), type=_File)
        return Mapping(given.line or default.line, given.time or default.time, given.request)
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, LoadError) as error:
        raise LoadError(f"{path}: {error}") from error


def _compiled(place: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise LoadError(f"{place}: no regular expression: {error}") from error


def _names(value: Any) -> set[str]:
    """The names between braces anywhere in a value of TOML."""
    if isinstance(value, str):
        return set(_NAME.findall(value))
    if isinstance(value, dict):
        value = list(value.values())
    return {name for one in value for name in _names(one)} if isinstance(value, list) else set()


def _made(value: Any, values: dict[str, str], count: int) -> Any:
    if isinstance(value, str):
        return count if value == COUNT else _filled(value, values)
    if isinstance(value, list):
        return [_made(one, values, count) for one in value]
    if isinstance(value, dict):
        return {key: _made(one, values, count) for key, one in value.items() if not _nothing(one, values)}
    return value


def _nothing(value: Any, values: dict[str, str]) -> bool:
    """Whether it is one name only, and the log has nothing there."""
    name = _NAME.fullmatch(value) if isinstance(value, str) else None
    return name is not None and values[name[1]] in ("", "-")


def _filled(text: str, values: dict[str, str]) -> str:
    return _NAME.sub(lambda name: values[name[1]], text)
