"""`make bench-growth`: how the cost of an answer grows with the catalogue, the features, the candidates and the batch.

Catalogues like the reference work W1's (`infra.growth`) of 10,000, 100,000 and 1,000,000 items (or `--sizes`) are
packed with the recipe that `endcap index tune` chooses for recall@500 >= 0.95, and loaded each in a process of its own.
There random shoppers' requests go through the batch path one at a time, on one core, which is what is measured: CPU
microseconds a request, stage by stage, beside the time from the process's start to its first answer, and the memory of
two workers forked from it. At 100,000 items the features, the candidates and the batch are varied. What was made is
used again by a later run; `--fresh` makes it anew. Prints Markdown, and writes the same as JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from infra import growth

VARIED = 100_000
FEATURES, CANDIDATES, BATCHES = (17, 50, 100, 200), (100, 500, 1000, 2000), (1, 2, 4, 8)
ROUNDS, WARM_UP = 20, 100
STAGES = ("encode", "filter", "retrieve", "score", "select")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("var/growth"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--json", type=Path, help="(default: growth.json in --dir)")
    parser.add_argument("--fresh", action="store_true", help="make everything anew")
    parser.add_argument("--make", type=Path, nargs=1, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, nargs=1, help=argparse.SUPPRESS)
    parser.add_argument("--vary", choices=("features", "rest"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.make[0], arguments.sizes[0], arguments.recall)
        return 0
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], arguments.sizes[0], arguments.requests, arguments.vary)))
        return 0
    found = run(arguments)
    text = json.dumps(found, indent=1) + "\n"
    (arguments.json or arguments.dir / "growth.json").write_text(text)
    print(as_markdown(found))
    return 0


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each part in a process of its own, so that none finds another's memory, caches or imports."""
    found: dict[str, Any] = {"command": " ".join(["make bench-growth", *sys.argv[1:]]), "sizes": []}
    for items in arguments.sizes:
        home = arguments.dir / str(items)
        options = ["--sizes", str(items), "--recall", str(arguments.recall), "--requests", str(arguments.requests)]
        if arguments.fresh or not (home / "tuned.json").exists():
            child("--make", str(home), *options)
        tuned = json.loads((home / "tuned.json").read_text())
        found["sizes"].append({"items": items, **tuned, **child("--measure", str(home), *options)})
        if items == VARIED:
            found["rest"] = child("--measure", str(home), "--vary", "rest", *options)
            found["features"] = child("--measure", str(home), "--vary", "features", *options)
    return found


def child(*options: str) -> Any:
    """What this script says of one part, as JSON."""
    print(" ".join(options), "…", file=sys.stderr)
    command = [sys.executable, "-m", "infra.bench_growth", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S603
    return json.loads(done.stdout or b"null")


def make(home: Path, items: int, recall: float) -> None:
    """The catalogue, the recipe for it by real user-tower vectors, and the bundle with that."""
    from ranking.bundle import load_bundle
    from ranking.index import write_index
    from ranking.tune import tune

    began = time.perf_counter()
    spec = growth.write(home, growth.embeddings(items))
    flat = load_bundle(growth.packed(spec, "", home / "flat"))
    vectors = growth.user_vectors(flat, growth.shoppers(items, 300, seed=7))
    tuned = tune(
        np.asarray(flat.items.embeddings), vectors, recall=recall, say=lambda text: print(text, file=sys.stderr)
    )
    write_index(tuned.index, home / "ready.faiss")
    part = f'[index]\nfile = "ready.faiss"\nfactory = "{tuned.best.factory}"\nnprobe = {tuned.best.nprobe}\n'
    at = time.perf_counter()
    growth.packed(spec, part, home / "models")
    packing = time.perf_counter() - at
    said = {"index": part, "best": msgspec.to_builtins(tuned.best), "tried": msgspec.to_builtins(tuned.tried)}
    said |= {"made_in_s": time.perf_counter() - began, "packed_in_s": packing}
    (home / "tuned.json").write_text(json.dumps(said, indent=1) + "\n")


def measure(home: Path, items: int, requests: int, vary: str | None) -> Any:
    """The figures of one size; or those of all that is varied there."""
    if vary == "features":
        return [{"features": one, **stages(with_features(home, one), items, requests, one)} for one in FEATURES]
    if vary == "rest":
        path = loaded(home / "models")[0]
        every = [("candidates", one, {"candidates": one}) for one in CANDIDATES]
        every += [("batch", one, {"batch": one}) for one in BATCHES]
        return [{name: one, **stages_of(path, items, requests, **options)} for name, one, options in every]
    path, times = loaded(home / "models", growth.shoppers(items, 1))
    return {**times, **stages_of(path, items, requests), "workers": two_workers(path, items)}


def with_features(home: Path, features: int) -> Path:
    """The same catalogue and index for shoppers with so many features."""
    if features == 17:
        return home / "models"
    other = home.parent / f"{home.name}-{features}"
    if not (other / "models").exists():
        spec = growth.write(other, growth.embeddings(int(home.name)), features)
        index = json.loads((home / "tuned.json").read_text())["index"]
        ready = (home / "ready.faiss").resolve()
        growth.packed(spec, index.replace("ready.faiss", str(ready)), other / "models", features)
    return other / "models"


def stages(models: Path, items: int, requests: int, features: int) -> dict[str, Any]:
    return stages_of(loaded(models)[0], items, requests, features=features)


def loaded(models: Path, first: list[Any] | None = None) -> tuple[Any, dict[str, float]]:
    """A batch path, and the seconds that it took: from the process's start to a first answer where one is asked."""
    import torch

    from ranking.batcher import hold_to_one_core
    from ranking.bundle import check_files, load_bundle, read_manifest
    from ranking.engine import BatchPath
    from ranking.sources.personal import Personal

    hold_to_one_core()
    directory = max((models / "growth").iterdir(), key=lambda one: int(one.name))
    began = time.perf_counter()
    bundle = load_bundle(directory)
    path = BatchPath(bundle, (Personal(),), torch.device("cpu"))
    times = {"loaded_in_s": time.perf_counter() - began}
    if first:
        growth.answers(path, first)
        times["ready_in_s"] = time.time() - process_start()
        began = time.perf_counter()
        check_files(directory, read_manifest(directory))
        times["of_it_hashing_s"] = time.perf_counter() - began
    return path, times


def process_start() -> float:
    """When this process began, in seconds since the epoch."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")


def stages_of(
    path: Any, items: int, requests: int, *, candidates: int = 500, batch: int = 1, features: int = 17
) -> dict[str, Any]:
    """CPU microseconds a request, all and by stage: the round that took the least."""
    from ranking.desk import StageTimer

    queries = growth.shoppers(items, requests, candidates, features)
    batches = [queries[at : at + batch] for at in range(0, len(queries) - batch + 1, batch)]
    for some in batches[: max(WARM_UP // batch, 1)]:
        growth.answers(path, some)
    least: tuple[float, dict[str, float]] = (np.inf, {})
    for _ in range(ROUNDS):
        taken: dict[str, float] = {}
        began = time.process_time()
        for some in batches:
            path.recommend(some, lambda stage, taken=taken: StageTimer(taken, stage, time.thread_time))
        least = min(least, (time.process_time() - began, taken), key=lambda one: one[0])
    each = 1e6 / (len(batches) * batch)
    return {"cpu_us": least[0] * each, "stages_us": {name: least[1][name] * each for name in STAGES}}


def two_workers(path: Any, items: int) -> dict[str, float]:
    """MiB that this process, as a supervisor, and two forked from it hold after 300 requests each: together (PSS), and
    one of the two (RSS)."""
    gc.collect()
    gc.freeze()  # as the service does before it forks
    said, ended = os.pipe(), os.pipe()
    pids = []
    for number in (1, 2):
        if not (pid := os.fork()):
            for query in growth.shoppers(items, 300, seed=10 + number):
                growth.answers(path, [query])
            os.write(said[1], b"x")
            os.close(ended[1])
            os.read(ended[0], 1)  # until the parent has looked at both
            os._exit(0)
        pids.append(pid)
    for _ in pids:
        os.read(said[0], 1)
    found = [memory(pid) for pid in [*pids, os.getpid()]]
    os.close(ended[1])
    for pid in pids:
        os.waitpid(pid, 0)
    return {"pss_mib": sum(one["Pss"] for one in found), "rss_mib": found[0]["Rss"]}


def memory(pid: int) -> dict[str, float]:
    """MiB of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value.split()[0]) / 1024 for name, _, value in (line.partition(":") for line in lines)}


def as_markdown(found: dict[str, Any]) -> str:
    head = ["items", "recipe", "nprobe", "recall@500", "search us", "CPU us a request", *STAGES]
    head += ["ready s", "hashing s", "supervisor and two workers, PSS MiB", "tuned and packed s"]
    rows = []
    for one in found["sizes"]:
        best, stage = one["best"], one["stages_us"]
        rows.append([
            f"{one['items']:,}", best["factory"], best["nprobe"], f"{best['recall']:.3f}", f"{best['search_us']:,.0f}",
            f"{one['cpu_us']:,.0f}", *(f"{stage[name]:,.0f}" for name in STAGES), f"{one['ready_in_s']:.1f}",
            f"{one['of_it_hashing_s']:.1f}", f"{one['workers']['pss_mib']:,.0f}", f"{one['made_in_s']:,.0f}",
        ])  # fmt: skip
    parts = [table(head, rows)]
    for name in ("features", "candidates", "batch"):
        varied = [one for one in [*found.get("features", []), *found.get("rest", [])] if name in one]
        cells = [
            [one[name], f"{one['cpu_us']:,.0f}", *(f"{one['stages_us'][stage]:,.0f}" for stage in STAGES)]
            for one in varied
        ]
        if cells:
            parts.append(table([name, "CPU us a request", *STAGES], cells))
    return "\n\n".join(parts)


def table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
