"""`endcap bundle diff`: two bundles side by side, only what differs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from rich.text import Text

from features.errors import InputError
from ranking.compare import Change, Comparison, ItemChange, Section, compare
from ranking.errors import BundleError
from service.commands.bundle_place import bundle_at
from service.commands.bundle_show import plain, put, safe
from service.commands.freshness import NONE, span
from service.console import console

SAME, DIFFERENT = 0, 1
"""Exit codes, as diff(1) has them; 2 is trouble."""

Row = tuple[str, str, str, str]
FILES = "files"

WORDS = 10
"""Words of a vocabulary that are named of those that came or went."""


def diff(directory: Path, a: str, b: str, as_json: bool) -> int:
    """Prints what differs. Returns the exit code. Raises InputError where one of the two cannot be read."""
    paths = [bundle_at(directory, one) for one in (a, b)]
    try:
        found = compare(*paths)
    except BundleError as error:
        raise InputError(str(error)) from error
    if as_json:
        out(paths, found)
    else:
        show(found)
    return DIFFERENT if found.differs else SAME


def out(paths: list[Path], found: Comparison) -> None:
    sides = {
        side: {"path": str(path), "name": one.name, "version": one.version, "created_at": one.created_at}
        for side, path, one in zip("ab", paths, (found.a, found.b), strict=True)
    }
    said = {**sides, "differs": found.differs, "sections": found.sections, "items": found.items, "same": found.same}
    console.print(msgspec.json.format(msgspec.json.encode(said)).decode(), markup=False, soft_wrap=True)


def show(found: Comparison) -> None:
    a, b = (f"{one.name}@{one.version}" for one in (found.a, found.b))
    a, b = (a, b) if a != b else (f"a: {a}", f"b: {b}")
    table = plain("", a, b, "b - a", numbers=("b - a",))
    table.add_row("made", *(f"{one.created_at:%Y-%m-%d %H:%M:%S}" for one in (found.a, found.b)), "")
    for name, section in found.sections.items():
        table.add_section()
        table.add_row(Text(name, style="bold"), "", "", "")
        for row in file_lines(section) if name == FILES else lines(section):
            table.add_row(*map(safe, row))
    if found.items is not None:
        table.add_section()
        table.add_row(Text("items", style="bold"), "", "", "")
        for row in item_lines(found.items):
            table.add_row(*map(safe, row))
    put(table)
    put(Text(f"the same: {', '.join(found.same) or 'nothing'}"))


def lines(section: Section) -> Iterable[Row]:
    for name, fields in section.removed.items():
        yield f" {name}", brief(fields), NONE, ""
    for name, fields in section.added.items():
        yield f" {name}", NONE, brief(fields), ""
    for name, changed in section.changed.items():
        for field, change in changed.items():
            what = name if field in ("value", "seconds") else f"{name}: {field}"
            yield f" {what}", *sides(field, change)
    if section.reordered:
        yield " order", "as here", "another", ""


def file_lines(section: Section) -> Iterable[Row]:
    """A line a file: how long it is on each side. Those of the same length hold something else."""
    for name in section.removed:
        yield f" {name}", f"{section.removed[name]['bytes']:,} bytes", NONE, ""
    for name in section.added:
        yield f" {name}", NONE, f"{section.added[name]['bytes']:,} bytes", ""
    for name, changed in section.changed.items():
        size = changed.get("bytes")
        if size is None:
            hashes = changed["sha256"]
            yield f" {name}", text("sha256", hashes.a), text("sha256", hashes.b), ""
        else:
            yield f" {name}", f"{size.a:,} bytes", f"{size.b:,} bytes", f"{size.b - size.a:+,}"


def brief(fields: dict[str, Any]) -> str:
    """One thing that only one side has."""
    said = {name: len(one) if isinstance(one, tuple) else one for name, one in fields.items()}
    told = [text(name, one) if len(said) == 1 else f"{name} {text(name, one)}" for name, one in said.items() if one]
    return ", ".join(told) or "there"


def sides(field: str, change: Change) -> tuple[str, str, str]:
    difference = "" if change.difference is None else f"{change.difference:+,.4g}"
    if field != "vocabulary":
        return text(field, change.a), text(field, change.b), difference
    moved = "; others moved" if change.moved else ""
    before, after = (f"{count:,} words" for count in (change.a, change.b))
    gone, new = some(change.words_removed), some(change.words_added)
    difference = f"{change.b - change.a:+,}"
    return f"{before}{gone and f', without b: {gone}'}", f"{after}{new and f', new: {new}'}{moved}", difference


def some(words: tuple[str, ...]) -> str:
    named = ", ".join(words[:WORDS])
    return f"{named} and {len(words) - WORDS:,} more" if len(words) > WORDS else named


def text(field: str, value: Any) -> str:
    match value:
        case None:
            return NONE
        case float() if field == "seconds":
            return span(value)
        case float():
            return f"{value:.6g}"
        case int() if not isinstance(value, bool):
            return f"{value:,}"
    return f"{str(value)[:12]}…" if field == "sha256" else str(value)


def item_lines(items: ItemChange) -> Iterable[Row]:
    yield " count", f"{items.a:,}", f"{items.b:,}", f"{items.b - items.a:+,}"
    if items.removed:
        yield f" {items.removed:,} only in a", more(items.some_removed, items.removed), "", ""
    if items.added:
        yield f" {items.added:,} only in b", "", more(items.some_added, items.added), ""
    if items.reordered:
        yield " order", "as here", "another", ""


def more(ids: tuple[str, ...], count: int) -> str:
    return ", ".join(ids) + (" …" if count > len(ids) else "")
