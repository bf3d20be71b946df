"""Rows that somebody pushes, written as `FeatureStore.write_to_online_store` writes them: into Feast's hashes, a row
only where it is newer than what is there. Feast reads the times and then writes, so two that push at once can undo each
other; here one script does both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from features.entitykeys import key_head, key_values
from features.errors import BadLookup, NotOffered, NotServed
from features.keys import Keys
from features.layout import encode_timestamp, feature_field, timestamp_field
from features.offer import NO_ENTITY, Offer, OfferedView
from features.pipeline import Pipeline, encode, together
from features.plain import microseconds, written
from features.scripts import PUSH

ROWS = 16
"""Rows in one script call: Redis serves nobody else meanwhile."""
SENT_AS = "event_timestamp"
"""What Feast's client calls the event time, whatever the source calls it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one view: their hashes, their times in microseconds since the epoch, and of each feature the serialized
    values."""

    view: OfferedView
    keys: list[bytes]
    times: list[int]
    values: list[list[bytes]]


def pushed_views(offer: Offer, source: str) -> list[OfferedView]:
    """The views that a push source feeds. Raises NotOffered."""
    found = [view for view in offer.views.values() if view.push_source == source]
    if not found:
        raise NotOffered("PushSourceNotFoundException", f"Unable to find push source '{source}'.")
    return found


def named_view(offer: Offer, name: str) -> OfferedView:
    """Raises NotOffered or NotServed."""
    if name in offer.on_demand:
        raise NotServed(f"{name} is an on-demand feature view: there is nothing of it to write")
    if name not in offer.views:
        message = f"Feature view {name} does not exist in project {offer.project}"
        raise NotOffered("FeatureViewNotFoundException", message)
    return offer.views[name]


def batch(offer: Offer, view: OfferedView, frame: Mapping[str, Sequence[Any]]) -> Batch:
    """Columns -> rows of the view. Columns that the view does not have are left out, as Feast leaves them.

    Raises BadLookup, with the place, for a column that is missing or a value that is none of its type.
    """
    lengths = {len(values) for values in frame.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise BadLookup("df", "Expected at least one column, all of them of the same length, at least 1")
    count = lengths.pop()
    names = sorted(view.join_keys)
    given = {**frame, NO_ENTITY: [""] * count}
    columns = [taken(view, given, name) for name in names]
    parts = [
        key_values(view.join_keys[name], values, f"df.{place}")[0]
        for name, (place, values) in zip(names, columns, strict=True)
    ]
    head, tail = key_head(names), offer.project.encode()
    keys = [b"".join((head, *some, tail)) for some in zip(*parts, strict=True)]
    place, times = taken(view, frame, view.event_time if view.event_time in frame else SENT_AS)
    converted = [converted_one(event_time, value, f"df.{place}[{row}]") for row, value in enumerate(times)]
    return Batch(view, keys, converted, [serialized(view, frame, name) for name in view.types])


def taken(view: OfferedView, frame: Mapping[str, Sequence[Any]], name: str) -> tuple[str, Sequence[Any]]:
    """A column, by its own name or by that which the view's source has for it, and that name. Raises BadLookup."""
    for one in (name, view.renamed.get(name, name)):
        if one in frame:
            return one, frame[one]
    raise BadLookup(f"df.{name}", f"Missing: the view {view.name} has it")


def serialized(view: OfferedView, frame: Mapping[str, Sequence[Any]], name: str) -> list[bytes]:
    place, values = taken(view, frame, name)
    return [
        converted_one(lambda one: written(view.types[name], one), value, f"df.{place}[{row}]")
        for row, value in enumerate(values)
    ]


def event_time(value: Any) -> int:
    """Microseconds since the epoch. Raises ValueError."""
    if (at := microseconds(value)) <= 0:
        raise ValueError(f"Expected a time after 1970, got {value!r}")
    return at


def converted_one(convert: Any, value: Any, path: str) -> Any:
    try:
        return convert(value)
    except ValueError as error:
        raise BadLookup(path, str(error)) from error


class Pusher:
    """Writes batches, over a connection of its own."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    async def write(self, offer: Offer, rows: Batch) -> int:
        """How many of the rows were newer than what was there; the others change nothing. Raises FeatureStoreError:
        some rows may be in then, and writing all of them again does no harm.
        """
        stored = rows.view.stored
        head = (b"%d" % offer.expire_s, timestamp_field(stored))
        names = [feature_field(stored, name) for name in rows.view.types]
        total = 0
        for start in range(0, len(rows.keys), ROWS):
            some = range(start, min(start + ROWS, len(rows.keys)))
            said: list[bytes] = []
            for row in some:
                pairs = [part for name, column in zip(names, rows.values, strict=True) for part in (name, column[row])]
                at = rows.times[row]
                said += (b"%d" % at, encode_timestamp(at), b"%d" % len(pairs), *pairs)
            keys = [rows.keys[row] for row in some]
            total += await self.pipeline.execute(encode(b"EVAL", PUSH, b"%d" % len(keys), *keys, *head, *said))
        newest = encode(
            b"ZADD", Keys(offer.project).newest, b"GT", b"%d" % max(rows.times), rows.view.name.encode()
        )  # for those who watch freshness
        await together(self.pipeline.execute(newest))
        return total
