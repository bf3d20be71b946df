"""`endcap index tune`: which index recipe is the cheapest that finds enough, on this catalogue and this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import uvloop
from rich.table import Table

from features.errors import InputError
from features.files import replace_file
from ranking.batcher import hold_to_one_core
from ranking.bundle import Bundle, load_bundle
from ranking.engine import BatchPath
from ranking.errors import BundleError
from ranking.forward import TorchForward
from ranking.index import Scores, write_index
from ranking.pack import IndexInput, PackSpec, read_spec
from ranking.tune import LEAST_A_LIST, Tried, Tuned, made_up_queries, tune
from service.commands.models import check_writable
from service.commands.packing import pack_with_registry
from service.commands.shoppers import known_shoppers
from service.console import console, step
from service.deployment import Deployment

CPU = torch.device("cpu")
FEW = 20
"""With fewer known shoppers than this their vectors say little of others'."""
TOWERS_AT_ONCE = 64


class Asked(msgspec.Struct, frozen=True):
    """What is asked for: `k` results, the least recall of them, about how many queries, numbers of lists to try."""

    k: int = 500
    recall: float = 0.95
    queries: int = 300
    lists: tuple[int, ...] = ()


def tune_command(
    directory: Path, spec_path: Path | None, model: str | None, asked: Asked, json: Path | None, index: Path | None
) -> None:
    """Measures, prints a table and the `[index]` part of a pack file; writes both where asked."""
    here = Deployment.at(directory)
    for path in (json, index):
        if path is not None:
            check_writable(path)
    hold_to_one_core()
    if spec_path is not None:
        tuned, of = tune_pack(here, spec_path, read(spec_path), asked)
    else:
        with step("Loading the bundle"):
            bundle = bundle_of(here, model)
        tuned, of = tune_bundle(here, bundle, asked)
    show(tuned, asked, of)
    console.print(f"\n{as_toml(tuned.best, index)}", markup=False, soft_wrap=True)
    if json is not None:
        said = {"asked": asked, "queries": of, "best": tuned.best, "tried": tuned.tried}
        replace_file(json, msgspec.json.format(msgspec.json.encode(said), indent=1) + b"\n")
        console.print(f"  wrote: {json}", markup=False, soft_wrap=True)
    if index is not None:
        write_index(tuned.index, index)
        console.print(f"  wrote: {index}", markup=False, soft_wrap=True)


def read(spec_path: Path) -> PackSpec:
    try:
        return read_spec(spec_path)
    except BundleError as error:
        raise InputError(str(error)) from error


def bundle_of(here: Deployment, model: str | None) -> Bundle:
    """The newest or the named version of a model: by default that of the first placement. Raises InputError."""
    name, _, version = (model or next(iter(here.config.placements.values())).model).partition("@")
    present = here.registry.versions(name)
    if not present or (version and version not in present):
        where = f"{here.registry.home(name)}/{version}".rstrip("/")
        raise InputError(f"no such version; there are: {', '.join(present) or 'none'}", file=where)
    return load_bundle(here.registry.fetch(name, version or present[-1]))


def tune_pack(here: Deployment, spec_path: Path, spec: PackSpec, asked: Asked) -> tuple[Tuned, str]:
    """For what a pack file names, packed with a flat index into a folder that is thrown away. Raises InputError."""
    with tempfile.TemporaryDirectory() as beside:
        with step(f"Packing {spec_path.name} without an index"):
            try:
                flat = msgspec.structs.replace(spec, index=IndexInput())
                path = pack_with_registry(here.repo, spec_path, flat, Path(beside))
                bundle = load_bundle(path)
            except BundleError as error:
                raise InputError(str(error)) from error
        return tune_bundle(here, bundle, asked)


def tune_bundle(here: Deployment, bundle: Bundle, asked: Asked) -> tuple[Tuned, str]:
    """The recipe for a bundle's items, and whose queries it was measured with. Raises InputError."""
    embeddings = np.ascontiguousarray(bundle.items.embeddings)
    for one in asked.lists:
        if one * LEAST_A_LIST > len(embeddings):
            most = len(embeddings) // LEAST_A_LIST
            raise InputError(f"--lists {one}: {len(embeddings):,} items are enough for {most:,} lists at most")
    with step("Asking the online store for shoppers"):
        queries, of = query_vectors(here, bundle, asked.queries)
    with step(f"Trying recipes for {len(embeddings):,} items") as running:
        tuned = tune(
            embeddings, queries, k=asked.k, recall=asked.recall, lists=asked.lists,
            say=lambda text: running.report.notes.append(text),
        )  # fmt: skip
        running.report.notes.clear()
    return tuned, of


def query_vectors(here: Deployment, bundle: Bundle, most: int) -> tuple[Scores, str]:
    """Vectors f32[n, E] to search with, and in words whose they are."""
    with here.online_store():
        known = uvloop.run(known_shoppers(here, bundle, most))
    if len(known) < FEW:
        said = f"made up, items' own embeddings with noise: the online store knows {len(known)} shoppers"
        return made_up_queries(np.asarray(bundle.items.embeddings), most), said
    path = BatchPath(bundle, (), CPU, models=TorchForward(bundle, CPU))
    batches = [known[at : at + TOWERS_AT_ONCE] for at in range(0, len(known), TOWERS_AT_ONCE)]
    vectors = np.concatenate([path.encode(batch)[0].vectors for batch in batches])
    return vectors, f"the user tower's vectors of {len(known)} shoppers of the online store"


def show(tuned: Tuned, asked: Asked, of: str) -> None:
    title = f"recall@{asked.k} against exact search; the cheapest with {asked.recall:g} or more is marked"
    table = Table(title=title, title_justify="left")
    table.add_column("recipe")
    for name in ("nprobe", "recall", "us a search", "MiB", "built in s"):
        table.add_column(name, justify="right")
    table.add_column("searched by")
    for one in tuned.tried:
        mark = " *" if one is tuned.best else ""
        numbers: list[Any] = [one.nprobe, f"{one.recall:.3f}", f"{one.search_us:,.0f}", f"{one.bytes / 2**20:,.1f}"]
        table.add_row(one.factory + mark, *map(str, numbers), f"{one.build_s:.1f}", one.by)
    console.print(table)
    console.print(f"  queries: {of}", soft_wrap=True, markup=False)


def as_toml(best: Tried, index: Path | None) -> str:
    """The `[index]` part of a pack file."""
    ready = "" if index is None else f'file = "{index.resolve()}"\n'
    return f'[index]\n{ready}factory = "{best.factory}"\nnprobe = {best.nprobe}'
