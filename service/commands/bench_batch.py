"""`endcap bench batch`: what batches cost on this device, placement by placement, and how large ones are worth having.

Batches of 1, 2, 4, … queries of each placement go through the deployment's own batch path, each query a shopper with a
history of its own; a curve is fitted to what they took as the running service fits one. Left out are the feature store,
HTTP, and what the service learns from its own traffic.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from rich.markup import escape
from rich.table import Table

from features.errors import InputError
from features.files import replace_file
from ranking.batch import Query
from ranking.batching import Curve, Figures, Policy, least, rows_of, sizes_to
from ranking.engine import BatchPath
from service import app
from service.batch_plot import page, picture
from service.console import console, step
from service.deployment import Deployment
from service.placements import Placement
from service.prepared import prepare

COUNT = 20
BAR = 22
"""Characters of the longest bar."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One placement: `seconds` of batches of the sizes that `figures` has, as measured, and the policy of their fit."""

    placement: str
    model: str
    seconds: tuple[float, ...]
    figures: Figures


def batches(directory: Path, tries: int, svg: Path | None, html: Path | None) -> None:
    """Prints a table for each placement, and writes the plot of all.

    Raises InputError, before anything is measured, for a file that cannot be; BundleError where a model is unusable.
    """
    for file in (svg, html):
        if file is not None and not file.absolute().parent.is_dir():
            raise InputError("its directory does not exist", file=file)
        if file is not None and file.is_dir():
            raise InputError("is a directory", file=file)
    here = Deployment.at(directory)
    with step("Loading the models"):
        prepared = prepare(here.directory, here.config, app.SOURCES)
    found = []
    for name, placement in here.config.placements.items():
        path = prepared.paths[prepared.versions.resolve(placement.model).key]
        with step(f"Measuring batches of {name}"):
            found.append(measure(name, placement, path, prepared.policy, tries))
    device = "CPU" if prepared.on_cpu else torch.cuda.get_device_name()
    for one in found:
        show(one)
    for file, made in ((svg, picture), (html, page)):
        if file is not None:
            replace_file(file, made(found, device).encode())
            console.print(f"The plot is in {file}", soft_wrap=True, markup=False)


def measure(name: str, placement: Placement, path: BatchPath, policy: Policy, tries: int) -> Measured:
    """The least of some tries for each size, and what a policy of the same bounds as `policy` makes of it."""
    queries = [shopper(number, placement, path) for number in range(policy.most)]
    rows = rows_of(queries[0])
    sizes = sizes_to(policy.most)

    def run(batch: object) -> None:
        path.recommend(batch, lambda stage: nullcontext())  # type: ignore[arg-type]

    run(queries)  # the first one compiles and lays out
    # By turns, so that what disturbs the machine for a moment does not bend the curve.
    rounds = [[least(run, queries[:size], perf_counter, 1) for size in sizes] for _ in range(tries)]
    seconds = tuple(map(min, zip(*rounds, strict=True)))
    curve = Curve([(size, size * rows, took) for size, took in zip(sizes, seconds, strict=True)])
    fitted = Policy(curve, most=policy.most, slo_s=policy.slo_s, typical=rows)
    return Measured(name, path.bundle.key, seconds, fitted.figures())


def shopper(number: int, placement: Placement, path: BatchPath) -> Query:
    """One whose history, of the model's full length, nobody else has."""
    ids, length = path.bundle.items.ids, path.schema.history.length
    history = [ids[(number * length + place) % len(ids)] for place in range(length)]
    item = ids[number % len(ids)] if placement.needs_item else None
    return Query({}, placement.sources, COUNT, session=history, item_id=item, ranked=placement.ranked)


def show(one: Measured) -> None:
    found = one.figures
    a_query = [took / size for took, size in zip(one.seconds, found.sizes, strict=True)]
    table = Table(title=f"{escape(one.placement)}, model {escape(one.model)}: {formula(found)}", title_justify="left")
    for name in ("queries", "measured us", "fitted us", "us a query"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for size, took, fitted, each in zip(found.sizes, one.seconds, found.seconds, a_query, strict=True):
        bar = "█" * max(1, round(BAR * each / max(a_query)))
        mark = "  worth having" if size == found.size else "  fastest" if size == found.fastest else ""
        table.add_row(f"{size:,}", f"{took * 1e6:,.0f}", f"{fitted * 1e6:,.0f}", f"{each * 1e6:,.0f}", bar + mark)
    console.print(table)
    console.print(verdict(found), soft_wrap=True)


def formula(found: Figures) -> str:
    """a + b n."""
    each = found.query_s + found.row_s * found.typical_rows
    return f"{found.fixed_s * 1e6:,.0f} us + {each * 1e6:,.0f} us a query"


def verdict(found: Figures) -> str:
    """The knee and the choice, for people."""
    if found.knee is None:
        knee = "a further query costs nothing"
    elif found.knee:
        knee = f"half of a batch's time is fixed at {found.knee:,.1f} queries (the knee)"
    else:
        knee = "nothing of a batch's time is fixed"
    chosen = "one at a time is best" if found.size == 1 else f"batches of {found.size} are worth having"
    return f"  {knee}; {chosen} within {found.slo_s * 1e3:g} ms\n"
