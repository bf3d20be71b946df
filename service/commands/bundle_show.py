"""`endcap bundle show`: what a bundle is, by its manifest. A damaged bundle is shown all the same."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from features.errors import InputError
from ranking.compare import search
from ranking.errors import BundleError
from ranking.manifest import Manifest, read_manifest
from ranking.schema import Categorical, Dense
from ranking.shareable import opened
from service.commands.bundle_place import bundle_at
from service.commands.freshness import NONE, span
from service.console import console

WIDE = 10_000
MOST_HEADER = 100 << 20
"""safetensors takes no longer header."""


def show(directory: Path, named: str, as_json: bool) -> None:
    """Prints a bundle. Raises InputError where there is none, or its manifest cannot be read."""
    path = bundle_at(directory, named)
    try:
        manifest = read_manifest(path)
    except BundleError as error:
        raise InputError(str(error)) from error
    if as_json:
        out(path, manifest)
        return
    for table in (head(path, manifest), *inputs(manifest), modules(path, manifest), files(manifest), metrics(manifest)):
        if table.row_count:
            put(table)


def put(table: Table | Text) -> None:
    """Prints it. A pipe has no width, and rich would take 80 letters."""
    console.print(table, width=None if console.is_terminal else WIDE)


def out(path: Path, manifest: Manifest) -> None:
    files = {"user_tower": manifest.user_tower.file, "ranker": manifest.ranker.file}
    said = {
        "path": str(path), "items": items(path), "search": search(manifest),
        "parameters": {role: parameters(path / file) for role, file in files.items()}, "manifest": manifest,
    }  # fmt: skip
    console.print(msgspec.json.format(msgspec.json.encode(said)).decode(), markup=False, soft_wrap=True)


def head(path: Path, manifest: Manifest) -> Table:
    table = plain(show_header=False)
    user, index = manifest.user, manifest.index
    known = items(path)
    rows = (
        ("model", f"{manifest.name}@{manifest.version}"),
        ("directory", str(path)),
        ("made", f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("shop", manifest.shop or NONE),
        ("items", "unknown: embeddings.npy cannot be read" if known is None else f"{known:,}"),
        ("dimension", str(manifest.dimension)),
        ("feature service", user.feature_service),
        ("history", f"{user.history.source}, the last {user.history.length}"),
        ("bought items", user.purchased or NONE),
        ("index", f"{index.factory}, nprobe {index.nprobe}, searched by {search(manifest)} on a CPU"),
    )
    for name, value in rows:
        table.add_row(name, safe(value))
    return table


def plain(*columns: str, title: str | None = None, numbers: Sequence[str] = (), show_header: bool = True) -> Table:
    """A table that folds and never cuts."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left",
                  show_header=show_header)  # fmt: skip
    for name in columns or ("", ""):
        table.add_column(safe(name), overflow="fold", justify="right" if name in numbers else "left")
    return table


def safe(text: str, style: str = "") -> Text:
    """For a terminal: one that a name with control letters in it cannot give orders to."""
    return Text("".join(letter if letter.isprintable() else "�" for letter in text), style=style)


def inputs(manifest: Manifest) -> Iterable[Table]:
    """The shopper's and the item's. The kind is a row of its own: there is no room for a column."""
    user, item = manifest.user, manifest.item
    ages = {view: NONE if age is None else span(age) for view, age in user.max_age_s.items()}
    columns = ("input", "encoded as", "words", "default", "max age")
    of_user = plain(*columns, title="Of the shopper", numbers=columns[2:])
    of_item = plain(*columns[:-1], title="Of the item", numbers=columns[2:])
    history = (user.history.source, "rows of the item table", NONE, NONE)
    for kind, mine, its in (
        ("dense", [dense(one) for one in user.dense], [dense(one) for one in item.dense]),
        ("categorical", [categorical(one) for one in user.categorical], [categorical(one) for one in item.categorical]),
        ("history", [history], []),
    ):
        for table, rows in ((of_user, mine), (of_item, its)):
            if rows:
                table.add_row(Text(kind, style="bold"))
            for source, *row in rows:
                age = (ages.get(source.partition(":")[0], NONE),) if table is of_user else ()
                table.add_row(*map(safe, (f" {source}", *row, *age)))
    return of_user, of_item


def dense(one: Dense) -> tuple[str, ...]:
    x = "place" if one.vocabulary is not None else {"identity": "x"}.get(one.transform, f"{one.transform}(x)")
    text = f"{x} {'-' if one.mean > 0 else '+'} {abs(one.mean):.4g}" if one.mean else x
    if one.scale != 1:
        text = f"{f'({text})' if one.mean else text} * {one.scale:.4g}"
    return one.source, text, NONE if one.vocabulary is None else f"{len(one.vocabulary):,}", f"{one.default:.4g}"


def categorical(one: Categorical) -> tuple[str, ...]:
    return one.source, "place + 1, or 0", f"{len(one.vocabulary):,}", "0"


def modules(path: Path, manifest: Manifest) -> Table:
    table = plain("module", "architecture", "file", "parameters", title="Modules", numbers=("parameters",))
    for role, one in (("user tower", manifest.user_tower), ("ranker", manifest.ranker)):
        count = parameters(path / one.file)
        table.add_row(*map(safe, (role, one.architecture, one.file, NONE if count is None else f"{count:,}")))
    return table


def files(manifest: Manifest) -> Table:
    table = plain("file", "bytes", "SHA-256", title="Files", numbers=("bytes",))
    for name, one in sorted(manifest.files.items()):
        table.add_row(*map(safe, (name, f"{one.bytes:,}", f"{one.sha256[:12]}…")))
    return table


def metrics(manifest: Manifest) -> Table:
    """A line a metric, a column a model that it was measured of."""
    names = list(dict.fromkeys(name for measured in manifest.metrics.values() for name in measured))
    table = plain("metric", *manifest.metrics, title="Metrics", numbers=tuple(manifest.metrics))
    for name in names:
        found = [measured.get(name) for measured in manifest.metrics.values()]
        table.add_row(safe(name), *(NONE if one is None else f"{one:.4f}" for one in found))
    return table


def items(path: Path) -> int | None:
    """How many there are, by the head of the embeddings; None where it cannot be read."""
    try:
        return len(opened(path / "embeddings.npy"))
    except (OSError, ValueError, TypeError):
        return None


def parameters(path: Path) -> int | None:
    """How many numbers a module's file holds, by its head; None for what is no safetensors file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if path.suffix != ".safetensors" or size > MOST_HEADER:
                return None
            head: dict[str, Any] = json.loads(file.read(size))
        return sum(int(math.prod(one["shape"])) for name, one in head.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
