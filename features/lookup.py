"""Features of many entities, by name, as Feast's API asks for them: what is meant, and the rows as the store has them.

Views with the same join keys lie in one hash, so each of their entities is one HMGET for all of them. Entities are
read some at a time, the next ones while these are decoded: neither the store nor the event loop is held for long, and
what is kept of a large request is its answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from features.entitykeys import key_head, key_values
from features.errors import BadLookup, NotOffered, NotServed
from features.layout import decode_timestamp, feature_field, timestamp_field
from features.offer import NO_ENTITY, Offer, OfferedView, Part
from features.pipeline import Pipeline, hmget, together
from features.plain import plain

CHUNK = 25
"""Entities read at a time."""
LATEST_TIME = 253_402_300_800.0  # the year 10000: no datetime reaches farther
PRESENT, NULL, NOT_FOUND, TOO_OLD, UNREADABLE = "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"
"""The names of Feast's `FieldStatus`."""


@dataclass(frozen=True, slots=True)
class Column:
    """An entity column: its name, and the values as they were understood."""

    name: str
    values: list[Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One view as it is asked for: its features, and the names that the answer has for them."""

    view: OfferedView
    alias: str
    features: list[str]
    names: list[str]


@dataclass(frozen=True, slots=True)
class Group:
    """Views that lie in the same hashes. `parts`: of those hashes' keys, for each join key one a row."""

    head: bytes
    parts: list[list[bytes]]
    tail: bytes
    views: list[Asked]

    def keys(self, start: int) -> list[bytes]:
        """Of at most CHUNK rows."""
        some = [one[start : start + CHUNK] for one in self.parts]
        return [b"".join((self.head, *values, self.tail)) for values in zip(*some, strict=True)]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a request means."""

    rows: int
    columns: list[Column]
    groups: list[Group]

    @property
    def views(self) -> list[Asked]:
        return [one for group in self.groups for one in group.views]


@dataclass(slots=True)
class Rows:
    """One view of some entities: by feature the values, and their statuses; by entity the event time, in seconds since
    the epoch, 0 where there is none."""

    values: list[list[Any]]
    statuses: list[list[str]]
    times: list[float] = field(default_factory=list)

    def add(self, status: str, at: float, values: Sequence[Any] | None = None) -> None:
        self.times.append(at)
        for place, statuses in enumerate(self.statuses):
            value = None if values is None else values[place]
            self.values[place].append(value)
            statuses.append(NULL if value is None and status is PRESENT else status)


def resolve(
    offer: Offer, features: Sequence[str], service: str | None, entities: Mapping[str, Sequence[Any]], *,
    full_names: bool,
) -> Lookup:  # fmt: skip
    """What is asked for. A service goes before features. Raises BadLookup, NotOffered or NotServed."""
    parts = of_service(offer, service) if service else of_references(offer, features)
    asked = [(part, named(offer, part, full_names)) for part in parts]
    refuse_collisions([name for _, one in asked for name in one.names], parts, full_names)
    lengths = {len(values) for values in entities.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise BadLookup("entities", "Expected at least one column, all of them of the same length, at least 1")
    rows = lengths.pop()
    given: dict[str, tuple[str, Sequence[Any]]] = {}
    for name, values in entities.items():
        key = offer.entities.get(name, name)
        if key in given:
            raise BadLookup(f"entities.{name}", f"It is the join key {key}, which is given as {given[key][0]} as well")
        given[key] = name, values
    groups, understood = grouped(offer, asked, given, rows)
    others = set(offer.entities.values())  # which the answer has as well, as Feast's has
    echoed = [
        Column(name, understood.get(name, list(values)))
        for name, (_, values) in given.items()
        if name in understood or name in others
    ]
    return Lookup(rows, echoed, groups)


def grouped(
    offer: Offer, asked: Sequence[tuple[Part, Asked]], given: Mapping[str, tuple[str, Sequence[Any]]], rows: int
) -> tuple[list[Group], dict[str, list[Any]]]:
    """The views by the hashes that they lie in, and the values of each join key as they were understood."""
    columns: dict[tuple[str, str], tuple[list[bytes], list[Any]]] = {}
    groups: dict[tuple[tuple[str, str, str], ...], Group] = {}
    for part, one in asked:
        keys = [(key, part.join_keys.get(key, key), kind) for key, kind in sorted(one.view.join_keys.items())]
        for _, name, kind in keys:
            if (name, kind) not in columns:
                columns[name, kind] = column(given, name, kind, rows, part.view)
        if tuple(keys) not in groups:
            its = [columns[name, kind][0] for _, name, kind in keys]
            groups[tuple(keys)] = Group(key_head([key for key, _, _ in keys]), its, offer.project.encode(), [])
        groups[tuple(keys)].views.append(one)
    understood = {name: values for (name, _), (_, values) in columns.items()}
    return list(groups.values()), understood


def column(
    given: Mapping[str, tuple[str, Sequence[Any]]], name: str, kind: str, rows: int, view: str
) -> tuple[list[bytes], list[Any]]:
    """A join key's part of every row's key, and its values. Raises BadLookup."""
    if name == NO_ENTITY:
        return key_values(kind, [""] * rows, "entities")
    if name not in given:
        there = ", ".join(sorted(given))
        raise BadLookup(f"entities.{name}", f"Missing: the view {view} is of entities by {name}; given: {there}")
    return key_values(kind, given[name][1], f"entities.{given[name][0]}")


def of_service(offer: Offer, name: str) -> list[Part]:
    if name not in offer.services:
        message = f"Feature service {name} does not exist in project {offer.project}"
        raise NotOffered("FeatureServiceNotFoundException", message)
    return list(offer.services[name])


def of_references(offer: Offer, references: Sequence[str]) -> list[Part]:
    """`view:feature`, in the order in which the views first come."""
    wanted: dict[tuple[str, int | None], list[str]] = {}
    for place, reference in enumerate(references):
        name, colon, feature = reference.partition(":")
        if not colon or not name or not feature:
            raise BadLookup(f"features[{place}]", f"Expected view:feature, got {reference[:100]!r}")
        name, version = pinned(name)
        wanted.setdefault((name, version), []).append(feature)
    if not wanted:
        raise BadLookup("features", "Expected features or a feature_service; there is neither")
    return [Part(name, name, tuple(found), {}, version) for (name, version), found in wanted.items()]


def pinned(name: str) -> tuple[str, int | None]:
    """`view@v2` -> the view and 2; `view@latest` is the view."""
    view, _, version = name.partition("@")
    if version.lower() == "latest":
        return view, None
    if version[:1].lower() == "v" and version[1:].isdecimal():
        return view, int(version[1:])
    return name, None


def named(offer: Offer, part: Part, full_names: bool) -> Asked:
    """The view and the features of a part. Raises NotOffered, NotServed or BadLookup."""
    if part.view in offer.on_demand:
        raise NotServed(
            f"{part.view} is an on-demand feature view: Feast's own server computes those, and this one not"
        )
    if part.version is not None:
        raise NotServed(f"{part.view}@v{part.version}: versions of a feature view are not read here, only the latest")
    if (view := offer.views.get(part.view)) is None:
        message = f"Feature view {part.view} does not exist in project {offer.project}"
        raise NotOffered("FeatureViewNotFoundException", message)
    if view.closed:
        raise NotServed(f"the feature view {part.view} serves nothing: {view.closed}")
    for feature in part.features:
        if feature not in view.types:
            known = ", ".join(view.types)
            raise BadLookup("features", f"the view {part.view} has no feature {feature[:100]!r}; there are {known}")
    names = [f"{part.alias}__{feature}" if full_names else feature for feature in part.features]
    return Asked(view, part.alias, list(part.features), names)


def refuse_collisions(names: Sequence[str], parts: Sequence[Part], full_names: bool) -> None:
    """Raises NotOffered where two features would have one name in the answer, as Feast does."""
    if len(set(names)) == len(names):
        return
    twice = ", ".join(sorted({name for name in names if names.count(name) > 1}))
    views = ", ".join(dict.fromkeys(part.alias for part in parts))
    cure = "ask for each once" if full_names else "set full_feature_names, or ask for each once"
    raise NotOffered("FeatureNameCollisionError", f"Feature names are there twice: {twice} (of {views}); {cure}")


class LookupReader:
    """Reads what lookups ask for, over a connection of its own."""

    def __init__(self, pipeline: Pipeline, now: Callable[[], float] = time.time) -> None:
        self.pipeline, self.now = pipeline, now

    async def read(self, lookup: Lookup) -> AsyncGenerator[list[Rows]]:
        """CHUNK entities at a time: the rows of each view, in the order of `lookup.views`. Raises FeatureStoreError."""
        plans = [(group, hmget(fields(group.views))) for group in lookup.groups]
        asked = self.ask(plans, 0)
        try:
            for start in range(0, lookup.rows, CHUNK):
                replies = await together(*asked)
                asked = self.ask(plans, start + CHUNK)
                yield self.decode(lookup, replies, min(CHUNK, lookup.rows - start))
        finally:  # whoever has gone does not want the next ones
            for one in asked:
                one.cancel()

    def ask(self, plans: Sequence[tuple[Group, Callable[[bytes], bytes]]], start: int) -> list[asyncio.Future[Any]]:
        return [self.pipeline.execute(command(key)) for group, command in plans for key in group.keys(start)]

    def decode(self, lookup: Lookup, replies: Sequence[Sequence[bytes | None]], count: int) -> list[Rows]:
        now, found = self.now(), list[Rows]()
        for number, group in enumerate(lookup.groups):
            its = replies[number * count : (number + 1) * count]
            at = 0
            for asked in group.views:
                size = len(asked.features)
                rows = Rows([[] for _ in range(size)], [[] for _ in range(size)])
                for reply in its:
                    decode_row(rows, reply[at], reply[at + 1 : at + 1 + size], asked.view.max_age_s, now)
                found.append(rows)
                at += 1 + size
        return found


def fields(views: Sequence[Asked]) -> list[bytes]:
    return [
        one
        for asked in views
        for one in (
            timestamp_field(asked.view.stored), *(feature_field(asked.view.stored, name) for name in asked.features)
        )
    ]  # fmt: skip


def decode_row(
    rows: Rows, stamp: bytes | None, raw: Sequence[bytes | None], max_age_s: float | None, now: float
) -> None:
    """One view of one entity. A value that is no value, and a time that is none, spoil the row."""
    if stamp is None:
        rows.add(NOT_FOUND, 0.0)
        return
    try:
        at = decode_timestamp(stamp)
        if not 0 <= at < LATEST_TIME:
            raise ValueError("no time that Feast writes")
        if max_age_s is not None and now - at > max_age_s:
            rows.add(TOO_OLD, at)
        else:
            rows.add(PRESENT, at, [None if one is None else plain(one) for one in raw])
    except ValueError:
        rows.add(UNREADABLE, 0.0)
