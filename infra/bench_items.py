"""`make bench-items`: what an item change costs the thread that answers, in a catalogue of a million (or SIZES=).

Catalogues like the reference work W1's (`infra.growth`), those of `make bench-growth` where they are there, else packed
with an index that is not tuned. A process loads one and forks a worker, as the service does: what the worker is the
first to write to is copied for it, and that is in the figures. Between two changes the worker answers a request. The
milliseconds are those of the change: on the clock and of CPU, the first one, the median and the worst of the others.
Counts are those that live events bring, of many items at once.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from infra import growth
from infra.bench_growth import loaded, memory, table
from ranking.items import POPULARITY_OF, STATS_AT

INDEX = '[index]\nfactory = "IVF{lists},Flat"\nnprobe = 60\n'
HEAD = ["items", "change", "first, ms", "CPU ms", "then: median, ms", "CPU ms", "worst, ms", "CPU ms"]
MANY = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("var/growth"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--changes", type=int, default=60, help="of each kind")
    arguments = parser.parse_args()
    rows = []
    for items in arguments.sizes:
        home = arguments.dir / str(items)
        if not (home / "models").is_dir():
            spec = growth.write(home, growth.embeddings(items))
            growth.packed(spec, INDEX.format(lists=max(items // 1000, 1)), home / "models")
        found = in_worker(home / "models", items, arguments.changes)
        rows += [[f"{items:,}", name, *(f"{one:.2f}" for one in figures)] for name, figures in found["kinds"].items()]
        print(f"{items:,} items: the worker's own memory {found['before']:.0f} -> {found['after']:.0f} MiB")
    print(table(HEAD, rows))
    return 0


def in_worker(models: Path, items: int, changes: int) -> Any:
    """What a fork of a process that has loaded the bundle finds."""
    path = loaded(models)[0]
    queries = growth.shoppers(items, changes)
    growth.answers(path, queries)
    gc.collect()
    gc.freeze()
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        found = measured(path, queries, changes)
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def measured(path: Any, queries: list[Any], changes: int) -> dict[str, Any]:
    growth.answers(path, queries)
    before = own_mib()
    kinds = {name: figures(path, queries, made) for name, made in kinds_of(len(path.bundle.items), changes)}
    return {"kinds": kinds, "before": before, "after": own_mib()}


def kinds_of(items: int, changes: int) -> Iterator[tuple[str, list[Any]]]:
    """Changes of each kind, and what they are called."""
    rng = np.random.default_rng(3)
    some = [str(one) for one in rng.permutation(items)[: (4 + MANY) * changes]]
    fresh = {"title": "A new one", "category": "Sundials", "price": 5.0, "dense_1": 0.5}
    yield "a new item", [[(f"new{n}", fresh)] for n in range(changes)]
    yield f"{MANY} new items", [[(f"more{n}-{i}", fresh) for i in range(MANY)] for n in range(changes)]
    yield "a price", [[(some.pop(), {"price": 9.0})] for _ in range(changes)]
    yield "a category", [[(some.pop(), {"category": "Sundials"})] for _ in range(changes)]
    yield "sold out", [[(some.pop(), {"in_stock": False})] for _ in range(changes)]
    yield "removed", [[(some.pop(), {"removed": True})] for _ in range(changes)]
    counted = {name: float(n + 1) for n, name in enumerate(POPULARITY_OF)} | {STATS_AT: 1.8e9}
    yield f"counts of {MANY} items", [[(some.pop(), counted) for _ in range(MANY)] for _ in range(changes)]


def figures(path: Any, queries: list[Any], changes: list[Any]) -> list[float]:
    """Milliseconds, on the clock and of CPU: of the first, and of the others the median and the most."""
    took = []
    for query, change in zip(queries, changes, strict=True):
        began, cpu = time.perf_counter(), time.thread_time()
        path.change(change)
        took.append((time.perf_counter() - began, time.thread_time() - cpu))
        growth.answers(path, [query])
    spent = 1e3 * np.array(took)
    return [float(one) for one in (*spent[0], *np.median(spent[1:], 0), *spent[1:].max(0))]


def own_mib() -> float:
    found = memory(os.getpid())
    return found["Private_Clean"] + found["Private_Dirty"]


if __name__ == "__main__":
    sys.exit(main())
